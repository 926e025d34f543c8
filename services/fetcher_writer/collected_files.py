"""The files of one ticket that were collected, each at most once: to measure, to cut, to place."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.collector import Candidates, Collector
from services.fetcher_writer.media import Media
from services.fetcher_writer.work import Ticket
from shared.crashpoints import reached
from shared.db.claims import Claim
from shared.errors import AttemptFailed, DownloadsError
from shared.matching.copies import STEP_S
from shared.matching.model import Offered
from shared.media.cut import cut
from shared.media.decode import decode
from shared.media.flac_blocks import cue_sheet_block
from shared.media.loudness import loudness
from shared.media.place import discard, translated
from shared.media.probe import ProbeResult, probe
from shared.media.verify import AudioFacts, verify
from shared.threads import MEDIA

log = structlog.get_logger()

# A file that announces no length is decoded to measure it: at least at this multiple of real time,
# and a little more for a busy machine. Slow ones reach 100.
_DECODE_SPEED = 10.0
_DECODE_SPARE_S = 60.0
# What measuring the files of one ticket may take. Of a box of 150 discs' files each takes a second.
BUDGET_S = 600.0
# How far a file may be from the length that it announces, where the catalog has none for it.
_ANY_LENGTH_S = 1.0
_CUT_TIMEOUT_S = 600.0
# So much of two files tells whether they are one recording.
_MOST_COMPARED_S = 1200.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found in a file; its length is None where a decode gives none either."""

    probed: ProbeResult
    duration_s: float | None


class OutOfTime(DownloadsError):
    """Measuring the files of the ticket has used up its budget."""


class CollectedFiles:
    """Collects under numbered temporary names of one claim, and keeps the files until `close`.

    `turn` bounds the files in work of the whole process, `budget_s` the time that all measuring
    takes.
    """

    def __init__(
        self,
        ticket: Ticket,
        claim: Claim,
        *,
        collector: Collector,
        media: Media,
        turn: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.ticket = ticket
        self._claim = claim
        self._collector = collector
        self._media = media
        self._turn = turn
        self.budget_s = self._left_s = BUDGET_S
        self._numbers = itertools.count(1)
        self._kept: dict[DeliveredFile, tuple[Path, str]] = {}
        self._keeping = asyncio.Lock()
        self._verified: dict[DeliveredFile, AudioFacts] = {}

    async def candidates(self) -> Candidates:
        """Find out where the ticket's files are, and which of them may be audio.

        Raises:
            AttemptFailed: they are not there, or none may be audio.
            Unavailable: the place cannot be read now.
        """
        self.ticket = await self._collector.located(self.ticket)
        return await self._collector.candidates(self.ticket)

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is used up: nothing more is measured."""
        return self._left_s <= 0

    async def measure(self, file: DeliveredFile, *, longest_s: float) -> Measured | None:
        """Collect the file and inspect it; None: it is not audio, or cannot be collected.

        Of audio that announces no length, the first `longest_s` are decoded: its length is then
        that, or what there is. Only a track that the file is matched to fails by what is wrong
        with it.

        Raises:
            OutOfTime: the budget of the ticket is used up.
            Unavailable: the place, a disk or ffmpeg cannot be used now.
        """
        async with self._turn():
            try:
                path, _ = await self._collect(file)
                async with self._measuring():
                    probed = await probe(path, self._media.find_tools(), {})
                    duration_s = probed.duration_s or await self._decoded_s(path, probed, longest_s)
            except AttemptFailed as failure:
                log.info("delivered_file_unfit", file=file.name, why=failure.message)
                return None
        return Measured(probed=probed, duration_s=duration_s)

    async def _decoded_s(self, path: Path, probed: ProbeResult, longest_s: float) -> float | None:
        try:
            async with asyncio.timeout(_DECODE_SPARE_S + longest_s / _DECODE_SPEED):
                decoded = await decode(
                    path, self._media.find_tools(), longest_s=longest_s, probed=probed
                )
        except TimeoutError:
            return None
        return decoded.seconds or None

    @asynccontextmanager
    async def _measuring(self) -> AsyncIterator[None]:
        """Count the time of the block, and end it where the budget ends.

        Raises:
            OutOfTime: the budget is used up.
        """
        if self.out_of_time:
            raise OutOfTime
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._left_s):
                yield
        except TimeoutError as exc:
            raise OutOfTime from exc
        finally:
            self._left_s -= time.monotonic() - started

    async def loudness(self, file: DeliveredFile) -> Sequence[float] | None:
        """The loudness of the decoded file, to compare recordings.

        None: it does not decode, or cannot be collected.

        Raises:
            OutOfTime: the budget of the ticket is used up.
            Unavailable: the place, a disk or ffmpeg cannot be used now.
        """
        async with self._turn():
            try:
                path = await self._keep(file)
            except AttemptFailed as failure:
                log.info("delivered_file_unfit", file=file.name, why=failure.message)
                return None
            async with self._measuring():
                return await loudness(
                    path, self._media.find_tools(), step_s=STEP_S, longest_s=_MOST_COMPARED_S
                )

    async def take(self, offer: Offered, file: DeliveredFile, temp: Path) -> str:
        """Put the file, or the part of it that is offered, at `temp`; returns how it was made.

        Raises:
            AttemptFailed: the file is gone, is not what the listing said, or cannot be cut.
            Unavailable: the place, our disk or ffmpeg cannot be used now.
        """
        if offer.start_s is None:
            return await self._take_whole(file, temp)
        await cut(
            await self._keep(file),
            temp,
            start_s=offer.start_s,
            end_s=offer.end_s,
            facts=self._verified[file],
            tools=self._media.find_tools(),
            timeout_s=_CUT_TIMEOUT_S,
        )
        return "cut"

    async def _take_whole(self, file: DeliveredFile, temp: Path) -> str:
        path, how = self._kept.pop(file, (None, ""))
        if path is not None and await MEDIA.run(_renamed, path, temp):
            return how
        await MEDIA.soon(self._media.root.still_there)
        return await self._collector.collect(self.ticket, file, temp)

    async def verified(self, file: DeliveredFile, *, most_s: float) -> AudioFacts:
        """The facts of the first `most_s` of the file, which are verified once.

        Raises:
            CorruptAudio: it is damaged.
            OutOfTime: the budget of the ticket is used up.
            AttemptFailed, Unavailable: as `take`.
        """
        if file not in self._verified:
            path = await self._keep(file)
            async with self._turn(), self._measuring():
                self._verified[file] = await verify(
                    path,
                    expected_ms=None,
                    tolerance_s=_ANY_LENGTH_S,
                    tools=self._media.find_tools(),
                    most_s=most_s,
                )
        return self._verified[file]

    async def text(self, file: DeliveredFile) -> bytes:
        """The content of a small file.

        Raises:
            AttemptFailed, Unavailable: as `take`.
        """
        path, _ = await self._collect(file)
        with translated("reading a CUE sheet"):
            return await MEDIA.run(path.read_bytes)

    async def cue_sheet_block(self, file: DeliveredFile) -> bytes | None:
        """The content of a FLAC file's CUESHEET block; None where there is none.

        Raises:
            AttemptFailed, Unavailable: as `take`.
        """
        path = await self._keep(file)
        with translated("reading a FLAC file's blocks"):
            return await MEDIA.run(cue_sheet_block, path)

    async def _keep(self, file: DeliveredFile) -> Path:
        """Where the collected file stays until `close`."""
        async with self._keeping:
            path, _ = self._kept.get(file, (None, ""))
            if path is None or not await MEDIA.run(path.exists):
                path, _ = await self._collect(file)
            return path

    async def _collect(self, file: DeliveredFile) -> tuple[Path, str]:
        await MEDIA.soon(self._media.root.still_there)
        path = self._media.temp(self._claim, next(self._numbers))
        how = await self._collector.collect(self.ticket, file, path)
        self._kept[file] = (path, how)
        reached("fetcher.sampled")
        return path, how

    async def close(self) -> None:
        """Remove the files that were not taken."""
        kept, self._kept = self._kept, {}
        for path, _ in kept.values():
            await MEDIA.run(discard, path)


def _renamed(path: Path, temp: Path) -> bool:
    """Rename the file; False when the reaper has removed it, after the claim had ended."""
    with translated("naming a temporary file"):
        try:
            path.replace(temp)
        except FileNotFoundError:
            return False
    return True
