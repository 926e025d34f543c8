"""A catalog of 200,000 tracks: memory, pages and the time-out of a query."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.local.sample import create_catalog
from shared.catalog import sqlite as sqlite_module
from shared.catalog.models import Scope
from shared.catalog.sqlite import Catalog
from shared.errors import DependencyDown
from tests.unit.test_catalog import run_sql, walk


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200,000 tracks on 20,000 albums."""
    path = tmp_path_factory.mktemp("large") / "catalog.db"
    create_catalog(path)
    run_sql(
        path,
        """
        BEGIN;
        CREATE TEMP TABLE n AS WITH RECURSIVE c(i) AS
            (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200000) SELECT i FROM c;
        INSERT INTO artists (rowid, id, name, followers_total, popularity)
            SELECT i, 'artist' || i, 'Artist ' || i, 0, 0 FROM n WHERE i <= 1000;
        INSERT INTO albums (rowid, id, name, album_type, label, popularity, release_date,
                            release_date_precision)
            SELECT i, 'album_' || i, 'Album ' || i, 'album', '', 0, '', 'day' FROM n
            WHERE i <= 20000;
        INSERT INTO tracks (rowid, id, name, album_rowid, track_number, popularity, disc_number,
                            duration_ms, explicit)
            SELECT i * 3, 'track_' || i, 'Track ' || i, i / 10 + 1, i % 10, i % 100, 1, 1000, 0
            FROM n;
        INSERT INTO track_artists SELECT i * 3, i % 1000 + 1, 0 FROM n;
        INSERT INTO artist_albums SELECT i % 1000 + 1, i, 0, 0, 0 FROM n WHERE i <= 20000;
        UPDATE tracks SET popularity = 101 WHERE album_rowid = 20000;
        COMMIT;
        """,
    )
    return path


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_a_large_catalog_needs_one_page_of_memory(large: Path) -> None:
    """Walking 200,000 tracks takes no more memory than a few pages of them."""
    catalog = Catalog(large)
    count = peak = before = 0
    async for _, page in catalog.pages(Scope(), page_size=1000):
        count += len(page)
        before = before or resident_bytes()
        peak = max(peak, resident_bytes())
    await catalog.close()
    assert count == 200_000
    # All of them at once take over 100 MB.
    assert peak - before < 20_000_000


async def test_a_rare_filter_does_not_scan_in_one_query(large: Path) -> None:
    """Pages that keep nothing still come, so a walk can be watched and stopped."""
    catalog = Catalog(large)
    pages = [p async for p in catalog.pages(Scope(min_popularity=101), page_size=20_000)]
    await catalog.close()
    assert [len(tracks) for _, tracks in pages] == [0] * 9 + [10]
    assert [last for last, _ in pages] == [60_000 * n for n in range(1, 11)]


async def test_slow_query_is_stopped(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that no index answers ends at its deadline, and the next one is asked afresh."""
    catalog = Catalog(large)
    await catalog.check()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_module, "QUERY_TIMEOUT_S", 0.0)
        with pytest.raises(DependencyDown, match="took longer"):
            await walk(catalog, Scope(), page_size=200_000)
    assert await catalog.track("track_1")
    await catalog.close()
