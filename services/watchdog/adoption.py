"""The record of files that the ledger lacks, by a scan with `adopt`.

Each file is decoded, and recorded in a transaction of its own that also counts it. So a scan that
is continued after a crash finds what is left by the status of the files, and counts nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from services.watchdog.store import ACTOR, Scan, ScanLost, Store
from shared.announcer import Announcer
from shared.catalog.models import Track
from shared.crashpoints import reached
from shared.db.adopt import adopt_unasked
from shared.db.media_root import MediaRoot
from shared.db.presence import Known, Notes, Seen, note
from shared.errors import AttemptFailed, DependencyDown, Stale
from shared.media.placed_file import Whole
from shared.media.tools import AudioTools
from shared.present import present

log = structlog.get_logger()

# They leave processors for requests, which decode as well.
_DECODES_AT_ONCE = 2


class Adoption:
    """Decodes and records files, some at once, while it keeps the scan's lease."""

    def __init__(
        self,
        *,
        store: Store,
        root: MediaRoot,
        announcer: Announcer,
        tools: Callable[[], AudioTools],
        tolerance_s: float,
    ) -> None:
        self._store = store
        self._root = root
        self._announcer = announcer
        self._tools = tools
        self._tolerance_s = tolerance_s
        # What could not be recorded on the page in hand is left to the next scan.
        self._tried: tuple[str, int] = ("", 0)
        self._left: set[str] = set()

    async def adopt(
        self,
        scan: Scan,
        tracks: Sequence[Track],
        before: Known,
        seen: Mapping[str, Seen],
        *,
        go_on: Callable[[], bool],
    ) -> bool:
        """Record the files of these tracks of a page until `go_on` is false; whether all are done.

        Raises:
            Stale: another watchdog has the scan, or it was cancelled.
            Unavailable: PostgreSQL, the disk or ffmpeg cannot be used now.
        """
        if self._tried != (scan.id, scan.after_rowid):
            self._tried, self._left = (scan.id, scan.after_rowid), set()
        tools = await asyncio.to_thread(self._tools)
        todo = iter([track for track in tracks if track.id not in self._left])

        async def work() -> None:
            for track in todo:
                await self._one(scan, track, before, seen[track.id], tools)
                if not go_on():
                    return

        await _together([work() for _ in range(_DECODES_AT_ONCE)], self._store.keep_lease(scan))
        return next(todo, None) is None

    async def _one(
        self, scan: Scan, track: Track, before: Known, seen: Seen, tools: AudioTools
    ) -> None:
        self._left.add(track.id)
        try:
            found = await present(
                self._root.path,
                seen,
                expected_ms=track.duration_ms,
                tolerance_s=self._tolerance_s,
                tools=tools,
            )
        except AttemptFailed as failure:
            log.warning("file_not_adopted", track_id=track.id, why=failure.message)
            return
        except DependencyDown as down:
            # Of a file that is being written the rest of the scan need not wait.
            await self._root.check()
            log.warning("file_not_adopted", track_id=track.id, why=down.detail)
            return
        reached("adopt.decoded")
        if found.broken is not None:
            async with self._store.database.transaction() as connection:
                await note(connection, Notes(problems=[found.broken]))
        if found.whole is not None:
            await self._record(scan, track, found.whole, before, seen)

    async def _record(
        self, scan: Scan, track: Track, whole: Whole, before: Known, seen: Seen
    ) -> None:
        named = any(each.uri == whole.uri == track.audio_uri for each in seen.candidates)
        try:
            async with self._store.database.transaction() as connection:
                await adopt_unasked(
                    connection,
                    track,
                    whole,
                    known=before.ledger.get(track.id),
                    named=named,
                    actor=ACTOR,
                )
                await self._store.adopted(connection, scan)
        except ScanLost:
            raise
        except Stale as stale:
            log.info("file_recorded_meanwhile", track_id=track.id, detail=str(stale))
            return
        reached("adopt.committed")
        await self._announcer.announce()


async def _together(
    working: Sequence[Coroutine[Any, Any, None]], keeping: Coroutine[Any, Any, None]
) -> None:
    """Run `working` to their end beside `keeping`, which has none; the first error ends all."""
    keeper = asyncio.create_task(keeping)
    tasks = {asyncio.create_task(each) for each in working}
    pending = set(tasks)
    try:
        while pending:
            done, _ = await asyncio.wait({*pending, keeper}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            pending -= done
    finally:
        for task in (*tasks, keeper):
            task.cancel()
        await asyncio.gather(*tasks, keeper, return_exceptions=True)
