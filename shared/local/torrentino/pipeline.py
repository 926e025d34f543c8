"""From a finished download to a file in `dest_path`.

The file is `<dest_path>/<torrent name>.converted`, grows under that name, overwrites what is
there, and is the source byte for byte whatever the ticket's output constraints say. `dest_path`
is used as it came, wherever it points: the real server does not check it either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.local.torrentino import states
from shared.local.torrentino.core import Core
from shared.local.torrentino.states import State
from shared.local.torrentino.tickets import Ticket
from shared.local.torrentino.timestamps import now_ns
from shared.local.torrentino.torrents import SAVE_PATH, Offer

_LOG = logging.getLogger(__name__)
_CHUNKS = 4
_CHUNK_BYTES = 4 * 1024 * 1024
_FFMPEG_FAILED = "Conversion failed: Conversion failed: FFmpeg exited with code: Some(1)"


@dataclass
class Pool:
    """How many jobs of one kind run at once."""

    name: str
    max_concurrent: int
    active: int = 0
    queued: int = 0
    processed: int = 0
    failed: int = 0
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.max_concurrent)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        self.queued += 1
        try:
            await self._slots.acquire()
        finally:
            self.queued -= 1
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._slots.release()

    def json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "active_jobs": self.active,
            "max_concurrent": self.max_concurrent,
            "queued_jobs": self.queued,
            "total_processed": self.processed,
            "total_failed": self.failed,
        }


class _Failure(Exception):
    """A job that ends as `failed`."""

    def __init__(self, error: str, *, retryable: bool) -> None:
        super().__init__(error)
        self.state = states.failed(error, retryable=retryable)


class Pipeline:
    """Runs the jobs; each carries on even when its ticket is cancelled or deleted."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self.conversion = Pool("conversion", 4)
        self.placement = Pool("placement", 8)
        self.converting: set[str] = set()
        self.placing: set[str] = set()

    def submit(self, ticket: Ticket, offer: Offer) -> None:
        """Start the job of a downloaded ticket; its state is `converting` on return."""
        self._put(ticket, states.converting(current_name="Starting...", started_ns=now_ns()))
        job = asyncio.create_task(self._run(ticket, offer), name=f"pipeline {ticket.id}")
        self._jobs[ticket.id] = job
        job.add_done_callback(lambda done: self._ended(ticket.id, done))

    def forget(self, ticket_id: str) -> None:
        """End the ticket's job where it is, if there is one."""
        job = self._jobs.pop(ticket_id, None)
        if job is not None:
            job.cancel()

    async def close(self) -> None:
        """End all jobs where they are: their tickets stay converting or placing."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _ended(self, ticket_id: str, job: asyncio.Task[None]) -> None:
        if self._jobs.get(ticket_id) is job:
            del self._jobs[ticket_id]
        if not job.cancelled() and (exc := job.exception()) is not None:
            _LOG.error("the job of ticket %s broke off", ticket_id, exc_info=exc)

    async def _run(self, ticket: Ticket, offer: Offer) -> None:
        try:
            if await self._convert(ticket, offer):
                await self._place(ticket, offer)
        except _Failure as failure:
            self._put(ticket, failure.state)

    async def _convert(self, ticket: Ticket, offer: Offer) -> bool:
        fate = self._core.fate(ticket)
        self._core.audit.emit(
            "conversion_started",
            ticket_id=ticket.id,
            user_id=None,
            input_path=f"{SAVE_PATH}/{offer.name}",
        )
        if fate == "stuck_converting":  # the real one: no temporary directory, and no word of it
            return False
        self.converting.add(ticket.id)
        try:
            async with self.conversion.slot():
                await self._converting(ticket, offer)
            if fate == "conversion_failed" or (fate == "multi_file" and _converts(ticket)):
                self.conversion.failed += 1
                raise _Failure(_FFMPEG_FAILED, retryable=False)
            self.conversion.processed += 1
        finally:
            self.converting.discard(ticket.id)
        return True

    async def _converting(self, ticket: Ticket, offer: Offer) -> None:
        self._put(ticket, states.converting(current_name=offer.name, started_ns=now_ns()))
        self._progress(ticket, phase="converting", name=offer.name, percent=42.5)
        await asyncio.sleep(self._core.config.convert_s)

    async def _place(self, ticket: Ticket, offer: Offer) -> None:
        extras = self._core.faults.extras(tuple(ticket.titles))
        self.placing.add(ticket.id)
        try:
            async with self.placement.slot():
                self._put(ticket, states.placing(total_files=1 + len(extras)))
                self._progress(ticket, phase="placing", name="", percent=0.0)
                placed = await self._deliver(ticket, offer, extras)
            self.placement.processed += 1
        except _Failure:
            self.placement.failed += 1
            raise
        finally:
            self.placing.discard(ticket.id)
        self._completed(ticket, placed)

    async def _deliver(self, ticket: Ticket, offer: Offer, extras: list[Path]) -> list[int]:
        """Put all files into `dest_path`; the sizes that the stats will speak of."""
        folder, fate = Path(ticket.dest_path), self._core.fate(ticket)
        target = folder / f"{offer.name}.converted"
        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            if fate == "no_files":
                return []
            if fate == "multi_file":
                await asyncio.to_thread(target.write_bytes, b"")
                raise IsADirectoryError
            cut = offer.size_bytes // 4 if fate == "size_mismatch" else 0
            whole = await self._copy(offer.path, target, cut=cut)
            beside = [await self._copy(each, folder / each.name, cut=0) for each in extras]
        except (OSError, ValueError) as exc:  # ValueError: a NUL in dest_path
            error = (
                f"Placement failed: Failed to copy file from {SAVE_PATH}/{offer.name} to {target}"
            )
            raise _Failure(error, retryable=True) from exc
        return [whole, *beside]

    async def _copy(self, source: Path, target: Path, *, cut: int) -> int:
        """Write `target` piece by piece over `place_s`, less `cut` bytes; the source's size."""
        size = (await asyncio.to_thread(source.stat)).st_size
        step = min(max(1, -(-size // _CHUNKS)), _CHUNK_BYTES)
        offsets = range(0, size - cut, step)
        await asyncio.to_thread(target.write_bytes, b"")
        for offset in offsets:
            length = min(step, size - cut - offset)
            await asyncio.to_thread(_append, source, target, offset=offset, length=length)
            await asyncio.sleep(self._core.config.place_s / len(offsets))
        return size

    def _completed(self, ticket: Ticket, sizes: list[int]) -> None:
        self._core.audit.emit(
            "placement_completed",
            ticket_id=ticket.id,
            user_id=None,
            files_placed=len(sizes),
            total_bytes=sum(sizes),
            dest_dir=ticket.dest_path,
        )
        seconds = int(self._core.config.convert_s)
        self._put(
            ticket,
            states.completed(conversion_s=seconds, size_bytes=sum(sizes), files_placed=len(sizes)),
        )

    def _put(self, ticket: Ticket, state: State) -> None:
        self._core.tickets.put(ticket.id, state)

    def _progress(self, ticket: Ticket, *, phase: str, name: str, percent: float) -> None:
        self._core.hub.broadcast(
            {
                "type": "pipeline_progress",
                "ticket_id": ticket.id,
                "phase": phase,
                "current": 0,
                "total": 1,
                "current_name": name,
                "percent": percent,
            }
        )


def _converts(ticket: Ticket) -> bool:
    constraints = ticket.output_constraints
    return constraints is not None and constraints.get("type") != "original"


def _append(source: Path, target: Path, *, offset: int, length: int) -> None:
    with source.open("rb") as reading, target.open("ab") as writing:
        reading.seek(offset)
        writing.write(reading.read(length))
