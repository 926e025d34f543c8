"""What presence costs: an adopt scan, requests for files of the server, and pages of a scan.

The catalog of the pages has 1,000,000 tracks on 100,000 albums, 12,000 of them with a file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from services.local.sample import add_album
from tests.support.audio import make_audio
from tests.support.world import World, album_id, eventually, track_id

_FILES = 1000
_TRACKS = 1_000_000
_PER_ALBUM = 10
_WITH_FILE = 12_000
_PAGE = 1000

_FILL = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :tracks - 1)
INSERT INTO tracks (rowid, id, name, album_rowid, track_number, popularity, disc_number,
                    duration_ms, explicit)
SELECT 10 + i, printf('P%021d', i), 'Song ' || i, 10 + i / :per_album, i % :per_album, 50, 1,
       8000, 0
  FROM n
"""
_ALBUMS = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :tracks / :per_album - 1)
INSERT INTO albums (rowid, id, name, album_type, label, popularity, release_date,
                    release_date_precision)
SELECT 10 + i, printf('Q%021d', i), 'Album ' || i, 'album', '', 50, '2024', 'year' FROM n
"""
_LEDGER = """
INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms, codec,
                         bitrate_kbps, album_id)
SELECT *, 'ogg', $3, '', 8000, 'vorbis', 320, NULL FROM unnest($1::text[], $2::text[])
"""


async def run(world: World) -> dict[str, Any]:
    """The figures, by name."""
    running = await world.run("ingest", "watchdog")
    assert running.api is not None
    api = running.api
    return await _adoption(world, api) | await _pages(world, api)


async def _adoption(world: World, api: httpx.AsyncClient) -> dict[str, Any]:
    """1,000 files in the catalog server's own layouts: nothing missing, all of them recorded."""
    song = make_audio(world.folder / "song.ogg", seconds=1, codec="vorbis")
    ids = [track_id(n) for n in range(1, _FILES + 1)]
    rows = [{"id": each, "name": each, "duration_ms": 1000} for each in ids]
    add_album(world.catalog, album_id=album_id(1), name="A", artist="B", tracks=rows)
    _put(world, song, {each: _uri(each, n) for n, each in enumerate(ids)})
    dry = await _scan(api)
    answers = [await _post(api, each) for each in ids[:20]]
    adopted = await _scan(api, adopt=True)
    [row] = await world.rows("SELECT count(*) AS n FROM media_files")
    assert (dry["missing"], row["n"], {status for status, _ in answers}) == (0, _FILES, {200})
    assert world.standin.tickets() == []
    return {
        "files of the server": _FILES,
        "dry run s": dry["duration_ms"] / 1000,
        "request for a file not recorded yet, median ms": _median(ms for _, ms in answers),
        "adopt scan s": adopted["duration_ms"] / 1000,
        "adopt scan files/s": round(1000 * adopted["adopted"] / adopted["duration_ms"], 1),
    }


async def _pages(world: World, api: httpx.AsyncClient) -> dict[str, Any]:
    song = world.folder / "song.ogg"
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute("DELETE FROM tracks")
        catalog.execute("DELETE FROM albums")
        sizes = {"tracks": _TRACKS, "per_album": _PER_ALBUM}
        catalog.execute(_ALBUMS, sizes)
        catalog.execute(_FILL, sizes)
    # Whole albums and halves of others, spread over the catalog.
    step = _TRACKS // _PER_ALBUM // (_WITH_FILE // 8)
    tracks = [
        f"P{album * _PER_ALBUM + n:021d}"
        for place, album in enumerate(range(0, _TRACKS // _PER_ALBUM, step))
        for n in range(_PER_ALBUM if place % 2 else 6)
    ]
    uris = {each: _uri(each, n) for n, each in enumerate(tracks)}
    _put(world, song, uris)
    await world.execute(_LEDGER, list(uris), list(uris.values()), song.stat().st_size)
    found: dict[str, Any] = {"tracks": _TRACKS, "tracks with a file": len(tracks)}
    for scope in ("all", "partial_albums"):
        cpu_s = time.process_time()
        report = await _scan(api, scope=scope)
        cpu_s, pages = time.process_time() - cpu_s, _TRACKS / _PAGE
        found |= {
            f"{scope}: ms a page of {_PAGE:,}": round(report["duration_ms"] / pages, 1),
            f"{scope}: CPU ms a page, without PostgreSQL": round(1000 * cpu_s / pages, 1),
            f"{scope}: present": report["present"],
            f"{scope}: missing": report["missing"],
        }
    return found


def _uri(track: str, n: int) -> str:
    """Two levels, or flat."""
    return f"audio/{track[-2:]}/{track[-4:-2]}/{track}.ogg" if n % 2 else f"audio/{track}.ogg"


def _put(world: World, song: Path, uris: dict[str, str]) -> None:
    """Links to one file, and their paths in the catalog."""
    for uri in uris.values():
        path = world.media / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(song, path)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        values = [(uri, track) for track, uri in uris.items()]
        catalog.executemany("UPDATE tracks SET audio_uri = ? WHERE id = ?", values)


async def _scan(api: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    scan_id = (await api.post("/v1/download/admin/scan", json=body)).json()["scan_id"]

    async def report() -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(f"/v1/download/admin/scan/{scan_id}")).json()
        return found

    return await eventually(report, lambda row: row["finished_at"] is not None, within_s=1800)


async def _post(api: httpx.AsyncClient, track: str) -> tuple[int, float]:
    started = time.monotonic()
    answer = await api.post(f"/v1/download/track/{track}")
    return answer.status_code, 1000 * (time.monotonic() - started)


def _median(values: Iterable[float]) -> float:
    ordered: Sequence[float] = sorted(values)
    return round(ordered[len(ordered) // 2], 1)
