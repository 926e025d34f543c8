"""The pipeline: it converts and places a finished download, or files that a client names.

The automatic job places one file, `<dest_path>/<torrent name>.converted`: it grows under that
name, replaces an existing file, and has the source's bytes whatever the ticket's output
constraints are; a torrent with a folder fails. An order (`/pipeline/process`) is converted by
ffmpeg and placed under the client's names. As in the real server, paths are not checked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from services.local.torrentino import convert, states
from services.local.torrentino.convert import Order
from services.local.torrentino.core import Core
from services.local.torrentino.pool import Pool
from services.local.torrentino.tickets import Ticket
from services.local.torrentino.timestamps import now_ns
from services.local.torrentino.torrent import Torrent

_LOG = logging.getLogger(__name__)
_CHUNKS = 4
_CHUNK_BYTES = 4 * 1024 * 1024


class JobExists(Exception):
    """The ticket already has a job."""


class _Failure(Exception):
    """A job that ends as `failed`."""

    def __init__(self, error: str, *, event: str, retryable: bool) -> None:
        super().__init__(error)
        self.error, self.event = error, event
        self.state = states.failed(error, retryable=retryable)


class Pipeline:
    """Runs the jobs; a job continues even if its ticket is cancelled or deleted."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self.conversion = Pool("conversion", 4)
        self.placement = Pool("placement", 8)
        self.converting: set[str] = set()
        self.placing: set[str] = set()

    def submit(self, ticket: Ticket, torrent: Torrent, *, zeros: bool) -> None:
        """Start the job of a downloaded ticket; its state is `converting` on return.

        With `zeros`, the file that it places consists of zeros.
        """
        self._start(ticket, self._automatic(ticket, torrent, zeros=zeros), files=1)

    def submit_order(self, ticket: Ticket, order: Order) -> None:
        """Start a job that a client ordered, whatever state the ticket is in.

        Raises:
            JobExists: it has a job that has not ended.
        """
        if ticket.id in self._jobs:
            raise JobExists(ticket.id)
        self._start(ticket, self._ordered(ticket, order), files=len(order.files))

    def forget(self, ticket_id: str) -> None:
        """Stop the ticket's job where it is, if there is one."""
        job = self._jobs.pop(ticket_id, None)
        if job is not None:
            job.cancel()

    async def close(self) -> None:
        """Stop all jobs where they are: their tickets stay converting or placing."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _start(self, ticket: Ticket, work: Coroutine[Any, Any, None], *, files: int) -> None:
        self._converting(ticket, name="Starting...", index=0, total=files)
        job = asyncio.create_task(self._run(ticket, work), name=f"pipeline {ticket.id}")
        self._jobs[ticket.id] = job
        job.add_done_callback(lambda done: self._ended(ticket.id, done, work))

    def _ended(
        self, ticket_id: str, job: asyncio.Task[None], work: Coroutine[Any, Any, None]
    ) -> None:
        work.close()  # cancelled before its first step, it was never awaited
        if self._jobs.get(ticket_id) is job:
            del self._jobs[ticket_id]
        if not job.cancelled() and (exc := job.exception()) is not None:
            _LOG.error("the job of ticket %s failed unexpectedly", ticket_id, exc_info=exc)

    async def _run(self, ticket: Ticket, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except _Failure as failure:
            self._core.audit.emit(
                failure.event, ticket_id=ticket.id, user_id=None, error=failure.error
            )
            self._core.tickets.put(ticket.id, failure.state)

    async def _automatic(self, ticket: Ticket, torrent: Torrent, *, zeros: bool) -> None:
        self._audit_start(ticket, torrent.path)
        fate = self._core.fate(ticket)
        if fate == "stuck_converting":  # as the real one without a temporary directory: no error
            return
        folder = torrent.offer.folder or fate == "multi_file"
        spoilt = fate == "conversion_failed" or (folder and _converts(ticket))
        async with _Listed(self.converting, ticket), self.conversion.slot():
            self._converting(ticket, name=torrent.name, index=0, total=1)
            self._progress(ticket, phase="converting", name=torrent.name, percent=42.5)
            await asyncio.sleep(self._core.config.convert_s)
            self.conversion.count(ok=not spoilt)
        if spoilt:
            raise _conversion_failed(1)
        extras = self._core.faults.extras(tuple(ticket.titles))
        async with _Listed(self.placing, ticket), self.placement.slot():
            self._placing(ticket, total=1 + len(extras))
            sizes = await self._counted(self._deliver(ticket, torrent, extras, zeros=zeros))
        self._completed(ticket, sizes, dest_dir=ticket.dest_path)

    async def _ordered(self, ticket: Ticket, order: Order) -> None:
        """Convert the files one after another, then place all of them; none if one fails."""
        if self._core.fate(ticket) == "stuck_converting":
            return
        async with convert.folder_for(ticket.id) as folder:
            async with _Listed(self.converting, ticket), self.conversion.slot():
                for index in range(len(order.files)):
                    await self._convert(ticket, order, index, folder)
            async with _Listed(self.placing, ticket), self.placement.slot():
                self._placing(ticket, total=len(order.files))
                await asyncio.sleep(self._core.config.place_s)
                sizes = await self._counted(self._place(order, folder))
        self._completed(ticket, sizes, dest_dir=order.dest_dir)

    async def _convert(self, ticket: Ticket, order: Order, index: int, folder: Path) -> None:
        file = order.files[index]
        name = Path(file.path).name
        self._audit_start(ticket, file.path)
        self._converting(ticket, name=name, index=index, total=len(order.files))
        self._progress(
            ticket, phase="converting", name=name, percent=0.0, index=index, total=len(order.files)
        )
        await asyncio.sleep(self._core.config.convert_s)
        failing = self._core.fate(ticket) == "process_failed"
        code = 1 if failing else await convert.convert(order, file, folder)
        self.conversion.count(ok=code == 0)
        if code != 0:
            raise _conversion_failed(code)

    async def _place(self, order: Order, folder: Path) -> list[int]:
        sizes = []
        for file in order.files:
            made, target = order.temp_file(file, folder), Path(order.dest_dir) / file.dest_filename
            try:
                sizes.append(await asyncio.to_thread(convert.move, made, target))
            except (OSError, ValueError) as exc:  # ValueError: a NUL in a path
                raise _placement_failed(f"move file from {made} to {target}") from exc
        return sizes

    async def _counted(self, placing: Coroutine[Any, Any, list[int]]) -> list[int]:
        try:
            sizes = await placing
        except _Failure:
            self.placement.count(ok=False)
            raise
        self.placement.count(ok=True)
        return sizes

    async def _deliver(
        self, ticket: Ticket, torrent: Torrent, extras: list[Path], *, zeros: bool
    ) -> list[int]:
        """Put all files into `dest_path`; return the sizes for the ticket's stats."""
        folder, fate, offer = Path(ticket.dest_path), self._core.fate(ticket), torrent.offer
        if torrent.name != offer.name:
            text = f"Placement failed: Source file not found: {torrent.path}"
            raise _Failure(text, event="placement_failed", retryable=False)
        target = folder / f"{offer.name}.converted"
        try:
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            if fate == "no_files":
                return []
            if offer.folder or fate == "multi_file":
                await asyncio.to_thread(target.write_bytes, b"")
                raise IsADirectoryError
            cut = offer.size_bytes // 4 if fate == "size_mismatch" else 0
            whole = await self._copy(offer.files[0].source, target, cut=cut, zeros=zeros)
            beside = [await self._copy(each, folder / each.name, cut=0) for each in extras]
        except (OSError, ValueError) as exc:  # ValueError: a NUL in dest_path
            raise _placement_failed(f"copy file from {torrent.path} to {target}") from exc
        return [whole, *beside]

    async def _copy(self, source: Path, target: Path, *, cut: int, zeros: bool = False) -> int:
        """Write `target` in pieces over `place_s`, less `cut` bytes; return the source's size."""
        size = (await asyncio.to_thread(source.stat)).st_size
        step = min(max(1, -(-size // _CHUNKS)), _CHUNK_BYTES)
        offsets = range(0, size - cut, step)
        await asyncio.to_thread(target.write_bytes, b"")
        for offset in offsets:
            length = min(step, size - cut - offset)
            if zeros:
                await asyncio.to_thread(_append_zeros, target, length=length)
            else:
                await asyncio.to_thread(_append, source, target, offset=offset, length=length)
            await asyncio.sleep(self._core.config.place_s / len(offsets))
        return size

    def _completed(self, ticket: Ticket, sizes: list[int], *, dest_dir: str) -> None:
        self._core.audit.emit(
            "placement_completed",
            ticket_id=ticket.id,
            user_id=None,
            files_placed=len(sizes),
            total_bytes=sum(sizes),
            dest_dir=dest_dir,
        )
        seconds = int(self._core.config.convert_s)
        state = states.completed(
            conversion_s=seconds, size_bytes=sum(sizes), files_placed=len(sizes)
        )
        self._core.tickets.put(ticket.id, state)

    def _audit_start(self, ticket: Ticket, input_path: str) -> None:
        self._core.audit.emit(
            "conversion_started", ticket_id=ticket.id, user_id=None, input_path=input_path
        )

    def _converting(self, ticket: Ticket, *, name: str, index: int, total: int) -> None:
        state = states.converting(
            current_name=name, started_ns=now_ns(), current_idx=index, total=total
        )
        self._core.tickets.put(ticket.id, state)

    def _placing(self, ticket: Ticket, *, total: int) -> None:
        self._core.tickets.put(ticket.id, states.placing(total_files=total))
        self._progress(ticket, phase="placing", name="", percent=0.0, total=total)

    def _progress(
        self,
        ticket: Ticket,
        *,
        phase: str,
        name: str,
        percent: float,
        index: int = 0,
        total: int = 1,
    ) -> None:
        self._core.hub.broadcast(
            {
                "type": "pipeline_progress",
                "ticket_id": ticket.id,
                "phase": phase,
                "current": index,
                "total": total,
                "current_name": name,
                "percent": percent,
            }
        )


class _Listed:
    """Keeps a ticket in one of the lists of `/pipeline/status`."""

    def __init__(self, tickets: set[str], ticket: Ticket) -> None:
        self._tickets, self._id = tickets, ticket.id

    async def __aenter__(self) -> None:
        self._tickets.add(self._id)

    async def __aexit__(self, *_exc: object) -> None:
        self._tickets.discard(self._id)


def _conversion_failed(code: int) -> _Failure:
    error = f"Conversion failed: Conversion failed: FFmpeg exited with code: Some({code})"
    return _Failure(error, event="conversion_failed", retryable=False)


def _placement_failed(what: str) -> _Failure:
    error = f"Placement failed: Failed to {what}"
    return _Failure(error, event="placement_failed", retryable=True)


def _converts(ticket: Ticket) -> bool:
    constraints = ticket.output_constraints
    return constraints is not None and constraints.get("type") != "original"


def _append(source: Path, target: Path, *, offset: int, length: int) -> None:
    with source.open("rb") as reading, target.open("ab") as writing:
        reading.seek(offset)
        writing.write(reading.read(length))


def _append_zeros(target: Path, *, length: int) -> None:
    with target.open("ab") as writing:
        writing.write(bytes(length))
