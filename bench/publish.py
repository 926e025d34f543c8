"""Publishing 100,000 files to a catalog in use: how long it takes, and what the server notices."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from services.bridge.catalog_file import CatalogFile
from services.bridge.publisher import Publisher
from services.bridge.store import Store
from shared.clock import SystemClock
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.errors import Unavailable
from shared.health import Health
from tests.support.catalog_server import catalog_server, create_server_catalog, playable
from tests.support.world import World

FILES = 100_000
_WRITERS = 6
_WRITER_PAUSE_S = 0.05
_LOCK_S = 60.0
_LEDGER = """
INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms, codec,
                         bitrate_kbps)
SELECT id, 'audio/' || id || '.ogg', 'ogg', 1, 'x', 1000, 'vorbis', 1 FROM unnest($1::text[]) AS id
"""


async def run(world: World) -> dict[str, Any]:
    """Alone, beside six writers, after a swap of the catalog, and while the server has its lock."""
    catalog = world.folder / "server" / "catalog.db"
    catalog.parent.mkdir()
    ids = await asyncio.to_thread(make_catalog, catalog, FILES)
    await asyncio.to_thread(make_files, world.media, ids)
    await world.execute(_LEDGER, ids)
    result: dict[str, Any] = {"files": FILES}
    async with catalog_server(catalog) as server, _publisher(world, catalog) as publisher:
        wal = catalog.with_name("catalog.db-wal")
        before = wal.stat().st_size
        result["alone"] = f"{await _timed(publisher):.1f} s"
        result["WAL written"] = f"{(wal.stat().st_size - before) / 1e6:.0f} MB"
        result["playable"] = len(await asyncio.to_thread(playable, catalog, world.media))
        result["again, nothing to write"] = f"{await _timed(publisher):.1f} s"
        await server.order("begin_writes", writers=_WRITERS, pause_s=_WRITER_PAUSE_S)
        await asyncio.sleep(10)
        result["six writers without us"] = await server.order("end_writes")
        await server.order("edit_all")
        await server.order("begin_writes", writers=_WRITERS, pause_s=_WRITER_PAUSE_S)
        result["beside six writers"] = f"{await _timed(publisher):.1f} s"
        result["six writers beside us"] = await server.order("end_writes")
    await asyncio.to_thread(_swap, catalog, FILES)
    async with catalog_server(catalog) as server, _publisher(world, catalog) as publisher:
        result["after a swap"] = f"{await _timed(publisher):.1f} s"
        await server.order("edit", track_id=ids[0])
        result["locked for 60 s"] = await _beside_a_lock(publisher, server)
        result["playable afterwards"] = len(await asyncio.to_thread(playable, catalog, world.media))
    return result


async def _beside_a_lock(publisher: Publisher, server: Any) -> dict[str, Any]:
    await server.order("lock")
    begun, refused = time.monotonic(), 0
    unlocking = asyncio.create_task(_unlock(server))
    while True:
        try:
            counts = await publisher.publish_all()
            break
        except Unavailable:
            refused += 1
    await unlocking
    return {
        "refused": refused,
        "written": counts.written,
        "after the lock": f"{time.monotonic() - begun - _LOCK_S:.1f} s",
    }


async def _unlock(server: Any) -> None:
    await asyncio.sleep(_LOCK_S)
    await server.order("unlock")


async def _timed(publisher: Publisher) -> float:
    begun = time.monotonic()
    await publisher.publish_all()
    return time.monotonic() - begun


@asynccontextmanager
async def _publisher(world: World, catalog: Path) -> AsyncIterator[Publisher]:
    database, clock = Database(world.database_url), SystemClock()
    file = CatalogFile(catalog)
    try:
        yield Publisher(
            store=Store(database),
            catalog=file,
            root=MediaRoot(database, world.media),
            health=Health(clock),
            clock=clock,
        )
    finally:
        await file.close()
        await database.close()


def make_catalog(path: Path, tracks: int) -> list[str]:
    """A catalog of albums of ten tracks; returns their ids, which have no order, by row. Blocks."""
    create_server_catalog(path)
    rng = random.Random(15)
    ids = [f"{rng.getrandbits(110):022x}"[:22] for _ in range(tracks)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO albums (rowid, id, name, album_type, label, popularity, release_date,"
            " release_date_precision) VALUES (?, ?, 'Album', 'album', 'L', 1, '2020', 'year')",
            [(number, f"A{number:021d}") for number in range(1, tracks // 10 + 1)],
        )
        connection.executemany(
            "INSERT INTO tracks (id, name, album_rowid, track_number, popularity, disc_number,"
            " duration_ms, explicit) VALUES (?, 'A name of some length', ?, ?, 1, 1, 1000, 0)",
            [(id_, place // 10 + 1, place % 10 + 1) for place, id_ in enumerate(ids)],
        )
    return ids


def make_files(media: Path, ids: list[str]) -> None:
    """A file of one byte for each. Blocks."""
    (media / "audio").mkdir(parents=True, exist_ok=True)
    for id_ in ids:
        (media / "audio" / f"{id_}.ogg").write_bytes(b"x")


def _swap(catalog: Path, tracks: int) -> None:
    """Another catalog of the same tracks, as the server's own documentation says it is put in."""
    for ending in ("-wal", "-shm"):
        catalog.with_name(catalog.name + ending).unlink(missing_ok=True)
    new = catalog.with_name("new.db")
    make_catalog(new, tracks)
    new.replace(catalog)
