"""What files in place are, each decoded once while it is the same.

A verdict is kept with the file's path, size and time, and the length that was expected. Requests
that need the same file wait for one decode. A decode that no request waits for any more is ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.ingest.store import verdicts as store
from services.ingest.store.verdicts import FileState
from shared.db.pool import Database, Row
from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.media.place import storage_error
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, Verify, verify
from shared.threads import MEDIA

T = TypeVar("T")

# A request may have to wait for a decode; two at once leave processors for the others.
DECODES_AT_ONCE = 2
# What is kept of failures; a time-out only for a while, for the next try may be faster.
_KEPT = (ErrorType.CORRUPTION, ErrorType.TIMEOUT)


@dataclass
class _Flight:
    task: asyncio.Task[AudioFacts]
    waiting: int = 0


class Verdicts:
    """`shared.media.verify.verify`, with a memory."""

    def __init__(
        self, database: Database, *, check: Verify = verify, at_once: int = DECODES_AT_ONCE
    ) -> None:
        self._database = database
        self._check = check
        self._decodes = asyncio.Semaphore(at_once)
        self._running: dict[FileState, _Flight] = {}

    async def verify(
        self, path: Path, *, expected_ms: int | None, tolerance_s: float, tools: AudioTools
    ) -> AudioFacts:
        """The facts of a file that is whole, as `verify`.

        Raises:
            CorruptAudio, AttemptFailed, Unavailable: as `verify`.
        """
        file = await _on_disk(lambda: _state(path, expected_ms, tolerance_s), path)
        flight = self._running.get(file)
        if flight is None:
            task = asyncio.create_task(self._once(path, file, tools), name=f"verdict {path.name}")
            flight = self._running[file] = _Flight(task=task)
            task.add_done_callback(lambda _: self._running.pop(file, None))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel("no request waits for it")

    async def _once(self, path: Path, file: FileState, tools: AudioTools) -> AudioFacts:
        async with self._database.connection() as connection:
            row = await store.read(connection, file)
        if row is not None:
            return _told(row)
        async with self._decodes:
            try:
                facts = await self._check(
                    path,
                    expected_ms=file.expected_ms or None,
                    tolerance_s=file.tolerance_s,
                    tools=tools,
                )
            except AttemptFailed as failure:
                if failure.error_type in _KEPT:
                    kind, message = failure.error_type, failure.message
                    await self._keep(path, file, error_type=kind, message=message)
                raise
        await self._keep(path, file, facts=asdict(facts))
        return facts

    async def _keep(
        self,
        path: Path,
        file: FileState,
        *,
        facts: Mapping[str, Any] | None = None,
        error_type: str | None = None,
        message: str | None = None,
    ) -> None:
        """Keep the verdict, unless the file was written to while it was decoded."""
        now = await _on_disk(lambda: _state(path, file.expected_ms, file.tolerance_s), path)
        if now == file:
            async with self._database.connection() as connection:
                await store.write(
                    connection, file, facts=facts, error_type=error_type, message=message
                )


def _told(row: Row) -> AudioFacts:
    if row["facts"] is not None:
        return AudioFacts(**row["facts"])
    if row["error_type"] == ErrorType.CORRUPTION:
        raise CorruptAudio(row["message"], {})
    raise AttemptFailed(ErrorType(row["error_type"]), row["message"])


def _state(path: Path, expected_ms: int | None, tolerance_s: float) -> FileState:
    status = path.lstat()
    return FileState(
        path_key=hashlib.sha256(os.fsencode(path)).hexdigest(),
        expected_ms=expected_ms or 0,
        tolerance_s=tolerance_s,
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
    )


async def _on_disk(read: Callable[[], T], path: Path) -> T:
    try:
        return await MEDIA.soon(read)
    except OSError as error:
        raise storage_error(error, f"reading {path.name} to verify it") from error
