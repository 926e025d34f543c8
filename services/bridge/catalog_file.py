"""The only code that writes to the catalog, and it writes only `tracks.audio_uri`.

The catalog server is the owner of the file and writes to it all the time. So this is a neighbour
that it must not notice: small transactions in the order of the rows, a pause between two of them,
no checkpoint, and nothing open between two calls.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from services.bridge.catalog_guard import CatalogGuard, CatalogId, identify, refuse_unwritable
from shared.crashpoints import reached
from shared.errors import DependencyDown, Misconfigured, Stale, Unavailable

T = TypeVar("T")

# Measured with the server: 500 rows take its lock for 10 ms, and with a pause of 1 ms or more no
# write of its own waits for longer. Without a pause they fail after its 5 s. Fewer rows leave room
# for a processor that is taken away from us while we have the lock.
ROWS_AT_ONCE = 250
PAUSE_S = 0.02
# The server may have its lock for minutes. The breaker waits for it, not this thread.
_BUSY_TIMEOUT_S = 2.0

_COLUMNS = "SELECT name FROM pragma_table_info('tracks')"
_NEEDED = frozenset({"id", "audio_uri"})
_BY_ID = "SELECT id, rowid FROM tracks WHERE id IN (SELECT value FROM json_each(?))"
# A cast, so that what is read does not depend on the type that the value has.
_BY_ROWID = """
SELECT rowid, id, CAST(audio_uri AS BLOB) FROM tracks NOT INDEXED
 WHERE rowid IN (SELECT value FROM json_each(?))
"""
# One statement: between two of them the interpreter may run another thread, and we have the lock.
# The rows are written in the order in which they are given.
_SET = """
UPDATE tracks
   SET audio_uri = change.new_uri
  FROM (SELECT json_extract(value, '$[0]') AS row, json_extract(value, '$[1]') AS id,
               json_extract(value, '$[2]') AS new_uri, json_extract(value, '$[3]') AS old_uri
          FROM json_each(?)) AS change
 WHERE tracks.rowid = change.row AND tracks.id = change.id
   AND CASE WHEN audio_uri IS NOT NULL THEN hex(CAST(audio_uri AS BLOB)) END IS change.old_uri
RETURNING tracks.id
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A track of the catalog: its row, and the bytes of its audio_uri."""

    rowid: int
    track_id: str
    audio_uri: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one row has to say instead of what it said when it was read."""

    rowid: int
    track_id: str
    old_uri: bytes | None
    new_uri: str


class CatalogFile:
    """Reads and sets audio_uri; one thread has all of SQLite.

    Every method raises Unavailable("catalog_write"): DependencyDown where the next call may do
    it, Misconfigured where an operator has to act first. Nothing is written then.
    """

    def __init__(
        self,
        path: Path,
        *,
        server_stopped: bool = False,
        busy_timeout_s: float = _BUSY_TIMEOUT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        """Open nothing yet. `pause_s`: the least time between two transactions."""
        self._path = path
        self._guard = CatalogGuard(path, server_stopped=server_stopped)
        self._busy_timeout_s = busy_timeout_s
        self._pause_s = pause_s
        self._wrote_at = float("-inf")
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog-write")

    def recall(self, known: CatalogId) -> None:
        """Tell which catalog an earlier process used last, before the first call of another."""
        self._guard.recall(known)

    async def which(self) -> CatalogId:
        """The file that is at the path now; nothing is opened."""
        return await self._in_thread(lambda: identify(self._path))

    async def check(self) -> None:
        """Return if the catalog may be written to and has the column."""
        await self._in_thread(self._check)

    async def find(self, track_ids: Sequence[str], *, of: CatalogId | None) -> Found:
        """The rows of these tracks, in one snapshot.

        `of`: the catalog that is expected.

        Raises:
            Stale: another catalog is there.
        """
        return await self._in_thread(lambda: self._find(track_ids, of))

    async def write(self, changes: Sequence[Change], *, of: CatalogId) -> set[str]:
        """Make the changes in one transaction; the ids of the tracks that are changed.

        A row that says something else by now stays as it is.

        Raises:
            Stale: another catalog is there.
        """
        assert len(changes) <= ROWS_AT_ONCE, "the server's writes wait for this transaction"
        return await self._in_thread(lambda: self._write(changes, of))

    async def close(self) -> None:
        """End the thread. The object cannot be used any more."""
        self._worker.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _check(self) -> None:
        with self._reading(None):
            refuse_unwritable(self._path)

    def _find(self, track_ids: Sequence[str], of: CatalogId | None) -> Found:
        with self._reading(of) as (catalog, connection):
            connection.execute("BEGIN")
            ids = connection.execute(_BY_ID, (json.dumps(list(track_ids)),)).fetchall()
            by_rowid = {rowid: _text(raw) for raw, rowid in ids}
            rows = connection.execute(_BY_ROWID, (json.dumps(sorted(by_rowid)),)).fetchall()
            connection.rollback()
        entries = [Entry(rowid=row[0], track_id=_text(row[1]), audio_uri=row[2]) for row in rows]
        if {entry.rowid: entry.track_id for entry in entries} != by_rowid:
            # An old -wal over another file: the pages of index and table are not of one database.
            raise Misconfigured("catalog_write", f"{self._path}: {_DAMAGED}")
        return Found(catalog=catalog, entries={entry.track_id: entry for entry in entries})

    def _write(self, changes: Sequence[Change], of: CatalogId) -> set[str]:
        time.sleep(max(0.0, self._wrote_at + self._pause_s - time.monotonic()))
        try:
            # While the first connection is open, the second is not the last one of this process
            # that is closed, and SQLite makes no checkpoint.
            with self._reading(of), self._writing() as connection:
                self._guard.confirm(of)
                return self._commit(connection, changes)
        finally:
            self._wrote_at = time.monotonic()

    def _commit(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> set[str]:
        ordered = sorted(changes, key=lambda change: change.rowid)
        given = json.dumps([_given(change) for change in ordered])
        connection.execute("BEGIN IMMEDIATE")
        try:
            changed = {_text(id_) for (id_,) in connection.execute(_SET, (given,)).fetchall()}
            reached("bridge.set")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.rollback()
        return changed

    @contextmanager
    def _reading(self, of: CatalogId | None) -> Iterator[tuple[CatalogId, sqlite3.Connection]]:
        """A connection that cannot write, on a catalog that may be written to."""
        admitted = self._guard.admit()
        if of is not None and admitted.database != of.database:
            raise Stale(f"{self._path} was replaced")
        with translated(self._path), closing(self._connect("ro")) as connection:
            connection.execute("PRAGMA query_only = 1")
            lacks = _NEEDED - {_text(raw) for (raw,) in connection.execute(_COLUMNS)}
            if lacks:
                raise Misconfigured("catalog_write", _without(self._path, lacks))
            self._guard.confirm(admitted)
            yield admitted, connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        refuse_unwritable(self._path)
        with closing(self._connect("rw")) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            # What a power cut takes is written again at the next start, and a commit that does not
            # wait for the disk has the server's lock for a shorter time.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path.absolute()))}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
        )
        connection.text_factory = bytes
        return connection


@dataclass(frozen=True, kw_only=True)
class Found:
    """The rows that a catalog has of some tracks, by track id."""

    catalog: CatalogId
    entries: dict[str, Entry]


_DAMAGED = (
    "it is damaged, or has the -wal of another file beside it: nothing is written. Stop the server,"
    " remove catalog.db-wal and catalog.db-shm, put a whole file in place, and start the server"
)


def _given(change: Change) -> tuple[int, str, str, str | None]:
    old = None if change.old_uri is None else change.old_uri.hex().upper()
    return change.rowid, change.track_id, change.new_uri, old


def _text(raw: object) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def _without(path: Path, lacks: frozenset[str]) -> str:
    if "id" in lacks:
        return f"{path} has no table of tracks: CATALOG_DB must name the server's catalog.db"
    return (
        f"{path} has no tracks.audio_uri: upgrade the catalog server, which looks for files by it"
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: Exception) -> Unavailable:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return Misconfigured("catalog_write", f"{path}: {text}: {_DAMAGED}")
    if "readonly" in text or "read-only" in text:
        return Misconfigured("catalog_write", f"{path}: {text}: let the bridge write to its folder")
    if "locked" in text or "busy" in text:
        return DependencyDown(
            "catalog_write", f"{path} is locked: the server is writing; nothing is lost"
        )
    return DependencyDown("catalog_write", f"{path}: {text}")
