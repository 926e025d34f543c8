"""A process that has a catalog open as the catalog server has, and follows orders.

SQLite's locks are those of a process, so that what the bridge does beside a server can only be seen
with two. The process has the server's connections (one that writes, four that read, WAL, no
checkpoint of its own, a busy timeout of 5 s), its rule for what plays, and its availability job.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

_SCHEMA = Path(__file__).with_name("server_catalog.sql")
_BUSY_TIMEOUT_S = 5.0
_READERS = 4

# The availability job: tracks by the disk, then albums and artists by their tracks.
_ALBUMS = """
UPDATE albums AS a SET album_availability = c.computed
  FROM (SELECT album_rowid,
               CASE WHEN sum(track_available) = 0 THEN 'missing'
                    WHEN sum(track_available) = count(*) THEN 'complete'
                    ELSE 'partial' END AS computed
          FROM tracks GROUP BY album_rowid) AS c
 WHERE c.album_rowid = a.rowid AND a.album_availability <> c.computed
"""
_ARTISTS = """
UPDATE artists AS a SET artist_available = c.computed
  FROM (SELECT ar.rowid AS artist_rowid,
               EXISTS (SELECT 1 FROM track_artists ta JOIN tracks t ON t.rowid = ta.track_rowid
                        WHERE ta.artist_rowid = ar.rowid AND t.track_available = 1) AS computed
          FROM artists ar) AS c
 WHERE c.artist_rowid = a.rowid AND a.artist_available <> c.computed
"""


def create_server_catalog(path: Path) -> None:
    """An empty catalog with the server's whole schema."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA.read_text(encoding="utf-8"))


def plays(media: Path, uri: str | None) -> bool:
    """The server's rule: the value is not empty, and joined to the media root it exists."""
    return bool(uri) and (media / str(uri)).exists()


def playable(catalog: Path, media: Path) -> list[str]:
    """The ids of the tracks that the server would play now."""
    uri = f"file:{catalog}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        rows = connection.execute("SELECT id, audio_uri FROM tracks ORDER BY rowid").fetchall()
    return [id_ for id_, uri in rows if plays(media, uri)]


class CatalogServer:
    """The process, from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def order(self, what: str, **more: object) -> Any:
        """Give an order and wait for its answer; see `Orders`."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"what": what, **more}).encode() + b"\n")
        await stdin.drain()
        answer = await stdout.readline()
        assert answer, "the process has ended"
        return json.loads(answer)

    async def end(self) -> None:
        """Stop it as SIGTERM stops the server: -wal and -shm are gone if it is the last user."""
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await self.process.wait()

    async def kill(self) -> None:
        """End it as a crash would: -wal and -shm stay."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def catalog_server(catalog: Path) -> AsyncIterator[CatalogServer]:
    """The process on this catalog, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.catalog_server", str(catalog)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    server = CatalogServer(process)
    try:
        await server.order("hello")
        yield server
    finally:
        await server.end()


class Orders:
    """What the process does; each method is an order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = self._connect()
        self._readers = [self._connect() for _ in range(_READERS)]
        for reader in self._readers:
            reader.execute("SELECT count(*) FROM tracks").fetchone()
        self._writing: list[Writing] = []

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path)

    def hello(self) -> str:
        return "ready"

    def lock(self) -> None:
        """Take the lock for writing, as a long job does, until `unlock`."""
        self._writer.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        self._writer.execute("COMMIT")

    def edit(self, track_id: str) -> None:
        """What `PUT /v1/content/track/{id}` does: the track is changed, and its value NULL."""
        self._writer.execute(
            "UPDATE tracks SET popularity = popularity + 1, audio_uri = NULL WHERE id = ?",
            (track_id,),
        )

    def edit_all(self) -> None:
        """The same of all tracks."""
        self._writer.execute("UPDATE tracks SET popularity = popularity + 1, audio_uri = NULL")

    def tidy(self, media: str) -> int:
        """The availability job; returns the number of changed rows."""
        writer, before = self._writer, self._writer.total_changes
        writer.execute("BEGIN IMMEDIATE")
        rows = writer.execute("SELECT rowid, audio_uri, track_available FROM tracks").fetchall()
        wrong = [
            (int(not available), rowid)
            for rowid, uri, available in rows
            if plays(Path(media), uri) != bool(available)
        ]
        writer.executemany("UPDATE tracks SET track_available = ? WHERE rowid = ?", wrong)
        writer.execute(_ALBUMS)
        writer.execute(_ARTISTS)
        writer.execute("COMMIT")
        return writer.total_changes - before

    def begin_writes(self, writers: int, pause_s: float) -> None:
        """Let so many connections write small transactions, each with a pause after it."""
        self._writing = [Writing(self._path, pause_s, number) for number in range(1, writers + 1)]
        for each in self._writing:
            each.start()

    def end_writes(self) -> dict[str, float]:
        """How many writes there were, how many failed, and the longest in seconds."""
        for each in self._writing:
            each.over.set()
            each.join()
        took = [took_s for each in self._writing for took_s in each.took_s]
        return {
            "writes": len(took),
            "failed": sum(each.failed for each in self._writing),
            "longest_s": max(took, default=0.0),
        }

    def close(self) -> None:
        for connection in (*self._readers, self._writer):
            connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection as the server opens it."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


class Writing(threading.Thread):
    """One connection that writes until it is over."""

    def __init__(self, path: Path, pause_s: float, number: int) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._pause_s = pause_s
        self._number = number
        self.over = threading.Event()
        self.took_s: list[float] = []
        self.failed = 0

    def run(self) -> None:
        with closing(connect(self._path)) as connection:
            while not self.over.wait(self._pause_s):
                begun = time.monotonic()
                try:
                    connection.execute(
                        "UPDATE tracks SET popularity = popularity + 1 WHERE rowid = ?",
                        (self._number,),
                    )
                except sqlite3.OperationalError:
                    self.failed += 1
                self.took_s.append(time.monotonic() - begun)


def main() -> None:
    orders = Orders(Path(sys.argv[1]))
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(orders, order.pop("what"))(**order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    orders.close()


if __name__ == "__main__":
    main()
