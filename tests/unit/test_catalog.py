"""Reading the catalog of any age, while its server writes to it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.local.sample import add_album, create_catalog
from shared.catalog import queries
from shared.catalog.models import Album, Scope, Track
from shared.catalog.sqlite import Catalog
from shared.errors import DependencyDown, InvalidRequest

OLD_SCHEMA = """
CREATE TABLE artists (rowid INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT);
CREATE TABLE albums (rowid INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT);
CREATE TABLE tracks (rowid INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT, album_rowid INTEGER,
                     track_number INTEGER, disc_number INTEGER, duration_ms INTEGER);
CREATE TABLE track_artists (track_rowid INTEGER, artist_rowid INTEGER);
CREATE TABLE artist_albums (artist_rowid INTEGER, album_rowid INTEGER, is_appears_on INTEGER,
                            index_in_album INTEGER);
"""


def run_sql(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A catalog with one album on two discs, in a folder with an awkward name."""
    folder = tmp_path / "da ta #1 100%?"
    folder.mkdir()
    path = folder / "catalog.db"
    create_catalog(path)
    add_album(
        path,
        album_id="album00000000000000001",
        name="Ünïcødé 夜",
        artist="Björk 🎵",
        tracks=[
            {"id": "track_2_1", "name": "Two One", "duration_ms": 21000, "disc_number": 2,
             "track_number": 1},
            {"id": "track_1_2", "name": "One Two", "duration_ms": 12000, "track_number": 2,
             "artists": ["Main", "Guest"], "isrc": "XX1234567890", "popularity": 80},
            {"id": "track_1_1", "name": "One One", "duration_ms": 11000, "track_number": 1,
             "popularity": 10},
        ],
    )  # fmt: skip
    return path


@pytest.fixture
async def catalog(path: Path) -> AsyncIterator[Catalog]:
    catalog = Catalog(path, busy_timeout_s=0.05)
    yield catalog
    await catalog.close()


async def walk(catalog: Catalog, scope: Scope, **options: int) -> list[str]:
    return [track.id async for _, page in catalog.pages(scope, **options) for track in page]


async def test_track(catalog: Catalog) -> None:
    """Everything that a search for the recording needs, in one answer."""
    assert await catalog.track("track_1_2") == Track(
        id="track_1_2",
        name="One Two",
        artists=("Main", "Guest"),
        album_id="album00000000000000001",
        album_name="Ünïcødé 夜",
        album_artist="Björk 🎵",
        disc_number=1,
        track_number=2,
        duration_ms=12000,
        isrc="XX1234567890",
        popularity=80,
    )


async def test_album(catalog: Catalog) -> None:
    """Tracks come by disc and number, whatever the order of the rows."""
    album = await catalog.album("album00000000000000001")
    assert isinstance(album, Album)
    assert (album.name, album.artist) == ("Ünïcødé 夜", "Björk 🎵")
    assert [track.id for track in album.tracks] == ["track_1_1", "track_1_2", "track_2_1"]


async def test_unknown_ids(catalog: Catalog) -> None:
    """Ids are compared exactly; an unknown one is no error."""
    assert await catalog.track("TRACK_1_2") is None
    assert await catalog.album("' OR 1=1 --") is None


async def test_artists_in_order_and_once(path: Path, catalog: Catalog) -> None:
    """Main before featured, no composers, no duplicates; a missing role counts as main."""
    run_sql(
        path,
        """
        DELETE FROM track_artists;
        INSERT INTO artists (rowid, id, name, followers_total, popularity) VALUES
            (101, 'a1', 'Featured', 0, 0), (102, 'a2', 'Main', 0, 0), (103, 'a3', 'Composer', 0, 0),
            (104, 'a4', 'Unsaid', 0, 0);
        INSERT INTO track_artists SELECT rowid, 101, 1 FROM tracks WHERE id = 'track_1_1';
        INSERT INTO track_artists SELECT rowid, 103, 2 FROM tracks WHERE id = 'track_1_1';
        INSERT INTO track_artists SELECT rowid, 102, 0 FROM tracks WHERE id = 'track_1_1';
        INSERT INTO track_artists SELECT rowid, 102, 1 FROM tracks WHERE id = 'track_1_1';
        INSERT INTO track_artists SELECT rowid, 104, NULL FROM tracks WHERE id = 'track_1_1';
        INSERT INTO artist_albums VALUES (102, 1, 0, 0, 1), (103, 1, 1, 0, 0);
        """,
    )
    track = await catalog.track("track_1_1")
    assert track is not None
    assert track.artists == ("Main", "Unsaid", "Featured")
    assert track.album_artist == "Björk 🎵, Main"


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Catalog]:
    """A catalog of an early schema, with everything NULL or odd that SQLite lets through."""
    path = tmp_path / "old.db"
    run_sql(
        path,
        OLD_SCHEMA
        + """
        INSERT INTO artists VALUES (1, 'artist1', 'Someone'), (2, 'artist2', NULL);
        INSERT INTO albums VALUES (1, 'album1', NULL);
        INSERT INTO tracks VALUES (1, 'track_a', 'A', 1, 1, 1, 1000), (2, 'track_b', NULL, 1, NULL,
            NULL, NULL), (3, 'track_c', X'C328', 99, 'x', 1.0, -5), (4, NULL, 'no id', 1, 1, 1, 1),
            (5, '../../etc', 'path', 1, 1, 1, 1), (6, 'track_d', 'a' || char(0) || 'b', NULL, 1, 1,
            '12');
        INSERT INTO track_artists VALUES (1, 1), (2, 2), (3, 77);
        INSERT INTO artist_albums VALUES (1, 1, 0, NULL), (1, 1, 0, 0);
        """,
    )
    catalog = Catalog(path)
    yield catalog
    await catalog.close()


async def test_old_schema(old: Catalog) -> None:
    """Columns that came later read as None."""
    await old.check()
    assert await old.track("track_a") == Track(
        id="track_a",
        name="A",
        artists=("Someone",),
        album_id="album1",
        album_name="album1",
        album_artist="Someone",
        disc_number=1,
        track_number=1,
        duration_ms=1000,
        isrc=None,
        popularity=None,
    )


async def test_nulls_and_odd_values(old: Catalog) -> None:
    """Missing names fall back to the id; what is no number or no text does not crash."""
    tracks = {t.id: t async for _, page in old.pages(Scope()) for t in page}
    assert sorted(tracks) == ["track_a", "track_b", "track_c", "track_d"]
    assert (tracks["track_b"].name, tracks["track_b"].artists) == ("track_b", ())
    assert tracks["track_b"].duration_ms is None
    odd = tracks["track_c"]
    assert (odd.album_id, odd.track_number, odd.disc_number, odd.duration_ms) == (
        None,
        None,
        1,
        None,
    )
    assert "\N{REPLACEMENT CHARACTER}" in odd.name
    assert (tracks["track_d"].name, tracks["track_d"].duration_ms) == ("ab", 12)


async def test_scope_that_an_old_schema_cannot_tell(old: Catalog) -> None:
    """A filter on a missing column is refused, not ignored."""
    scope = Scope(min_popularity=5)
    with pytest.raises(InvalidRequest, match="this catalog has no"):
        await walk(old, scope)
    with pytest.raises(InvalidRequest):
        await old.count(scope)
    assert await old.track("track_a")


async def test_albums_of_a_page(path: Path, catalog: Catalog) -> None:
    """A page as its albums, whether one of their tracks has a path, and the tracks of some."""
    rows = [{"id": f"other_{n}", "name": "x", "duration_ms": 1, "popularity": n * 10}
            for n in range(4)]  # fmt: skip
    add_album(path, album_id="album00000000000000002", name="Named", artist="B", tracks=rows)
    uris = "UPDATE tracks SET audio_uri = CASE id WHEN 'other_2' THEN 'a/b.ogg' ELSE '' END"
    run_sql(path, uris)
    scope = Scope(kind="partial_albums", min_popularity=20)
    page = await catalog.page_albums(scope, after_rowid=0, page_size=100)
    assert page is not None
    end, albums = page
    assert {(album.id, album.named) for album in albums} == {
        ("album00000000000000001", False), ("album00000000000000002", True)
    }  # fmt: skip
    [named] = [album for album in albums if album.named]
    tracks = await catalog.page_of_albums(scope, after_rowid=0, end=end, albums=[named])
    assert [track.id for track in tracks] == ["other_2", "other_3"]
    found = await catalog.album_uris(named)
    assert (found.uris["other_2"], found.uris["other_0"], found.whole) == ("a/b.ogg", "", True)
    assert len(found.uris) == 4
    assert await catalog.page_albums(scope, after_rowid=end, page_size=100) is None


async def test_where_files_are(path: Path, catalog: Catalog, old: Catalog) -> None:
    """The catalog's paths as they are; what is no text is none; an old catalog knows nothing."""
    run_sql(path, "UPDATE tracks SET audio_uri = 'x/ü.ogg' WHERE id = 'track_1_1'")
    run_sql(path, "UPDATE tracks SET audio_uri = x'00ff' WHERE id = 'track_1_2'")
    found = await catalog.audio_uris(["track_1_1", "track_1_2", "track_2_1", "nothing"])
    assert (found["track_1_1"], found["track_2_1"]) == ("x/ü.ogg", None)
    assert (found["track_1_2"] or "").startswith("\0")
    assert "nothing" not in found
    assert await old.audio_uris(["track_a"]) == {}
    page = await old.page_albums(Scope(kind="partial_albums"), after_rowid=0, page_size=100)
    assert page is not None
    assert page[1]
    assert not any(album.named for album in page[1])


async def test_scopes(path: Path, catalog: Catalog) -> None:
    """Each scope yields its tracks and no other."""
    add_album(
        path,
        album_id="album00000000000000002",
        name="Partial",
        artist="Other",
        tracks=[{"id": f"other_{n}", "name": "x", "duration_ms": 1, "popularity": n * 10}
                for n in range(4)],
    )  # fmt: skip
    others = [f"other_{n}" for n in range(4)]
    assert len(await walk(catalog, Scope())) == 7
    one = Scope(kind="album", album_id="album00000000000000002")
    assert await walk(catalog, one, page_size=3) == others
    assert await walk(catalog, Scope(min_popularity=75)) == ["track_1_2"]
    assert await catalog.count(Scope()) == 7
    assert await catalog.count(one) == 4
    assert await catalog.count(Scope(kind="partial_albums")) is None
    with pytest.raises(InvalidRequest):
        await walk(catalog, Scope(kind="album"))


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_pages_go_on_from_where_they_were(page_size: int, catalog: Catalog) -> None:
    """Any page size and any restart see every track exactly once."""
    seen: list[str] = []
    after = 0
    while True:
        pages = catalog.pages(Scope(), after_rowid=after, page_size=page_size)
        page = await anext(pages, None)
        await pages.aclose()
        if page is None:
            break
        after = page[0]
        assert len(page[1]) <= page_size
        seen += [track.id for track in page[1]]
    assert seen == ["track_2_1", "track_1_2", "track_1_1"]


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """The catalog server, with its checkpoints off as upstream has them."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    yield connection
    connection.close()


async def test_reads_while_another_writes(catalog: Catalog, writer: sqlite3.Connection) -> None:
    """An open write does not hinder, and is seen once committed, still in the WAL."""
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE tracks SET name = 'New' WHERE id = 'track_1_1'")
    before = await catalog.track("track_1_1")
    writer.execute("COMMIT")
    after = await catalog.track("track_1_1")
    assert (before and before.name, after and after.name) == ("One One", "New")


async def test_walk_holds_no_transaction(catalog: Catalog, writer: sqlite3.Connection) -> None:
    """Between two pages the server can write and truncate its log, and new tracks are seen."""
    seen: list[str] = []
    async for _, page in catalog.pages(Scope(), page_size=1):
        seen += [track.id for track in page]
        if len(seen) == 1:
            writer.execute("DELETE FROM tracks WHERE id = 'track_1_2'")
            (busy, *_), *_ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            assert busy == 0
    assert seen == ["track_2_1", "track_1_1"]


async def test_never_writes(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection could not write if it wanted to."""
    await catalog.check()
    monkeypatch.setattr(queries, "PAGE_END", "DELETE FROM tracks")
    with pytest.raises(DependencyDown, match="readonly"):
        await walk(catalog, Scope())


async def test_replaced_file_is_noticed(catalog: Catalog, path: Path, tmp_path: Path) -> None:
    """A catalog that was swapped for a new one is read from the next call on."""
    assert await catalog.track("track_1_1")
    fresh = tmp_path / "fresh.db"
    create_catalog(fresh)
    add_album(fresh, album_id="album_new", name="New", artist="New",
              tracks=[{"id": "track_new", "name": "New", "duration_ms": 1}])  # fmt: skip
    fresh.rename(path)
    assert await catalog.track("track_1_1") is None
    assert await catalog.track("track_new")


async def test_changed_columns_cost_one_call(path: Path, catalog: Catalog) -> None:
    """A migration that renames a column costs one failed call."""
    await catalog.check()
    run_sql(path, "ALTER TABLE tracks RENAME COLUMN popularity TO fame")
    with pytest.raises(DependencyDown):
        await catalog.track("track_1_2")
    track = await catalog.track("track_1_2")
    assert track is not None
    assert track.popularity is None


async def test_missing_file(tmp_path: Path) -> None:
    """Nothing is created where the catalog should be; it may appear later."""
    path = tmp_path / "catalog.db"
    catalog = Catalog(path)
    with pytest.raises(DependencyDown, match="CATALOG_DB") as caught:
        await catalog.check()
    assert caught.value.dependency == "catalog"
    assert not path.exists()
    create_catalog(path)
    await catalog.check()
    await catalog.close()


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be read" * 100])
async def test_what_is_no_catalog(content: bytes, tmp_path: Path) -> None:
    """The error for an empty or foreign file."""
    path = tmp_path / "catalog.db"
    path.write_bytes(content)
    catalog = Catalog(path)
    with pytest.raises(DependencyDown, match=r"lacks the table|not a catalog"):
        await catalog.check()
    await catalog.close()


async def test_missing_column_is_named(path: Path) -> None:
    """The error names the missing column."""
    run_sql(path, "ALTER TABLE tracks RENAME COLUMN album_rowid TO album")
    catalog = Catalog(path)
    with pytest.raises(DependencyDown, match=r"tracks\.album_rowid"):
        await catalog.check()
    await catalog.close()


async def test_locked(path: Path) -> None:
    """A locked database is waited for a moment, and read again when it is free."""
    run_sql(path, "PRAGMA journal_mode = DELETE")
    catalog = Catalog(path, busy_timeout_s=0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DependencyDown, match="locked"):
            await catalog.check()
        holder.execute("ROLLBACK")
        await catalog.check()
    await catalog.close()


async def test_calls_at_once(catalog: Catalog) -> None:
    """Many tasks share the one thread."""
    found = await asyncio.gather(*(catalog.track("track_1_1") for _ in range(50)))
    assert all(track is not None for track in found)


async def test_close_without_use(path: Path) -> None:
    """An object that never opened anything has nothing to give back."""
    await Catalog(path).close()
