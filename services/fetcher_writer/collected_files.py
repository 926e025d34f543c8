"""The files of one ticket that were collected, each at most once: to measure, to cut, to place."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.collector import Candidates, Collector
from services.fetcher_writer.media import Media
from services.fetcher_writer.work import Ticket
from shared.crashpoints import reached
from shared.db.claims import Claim
from shared.errors import AttemptFailed
from shared.matching.copies import STEP_S
from shared.matching.model import Offered
from shared.media.cut import cut
from shared.media.decode import decode
from shared.media.loudness import loudness
from shared.media.place import discard, translated
from shared.media.probe import ProbeResult, probe
from shared.media.verify import AudioFacts, verify

log = structlog.get_logger()

# A file that announces no length is decoded to measure it, for as long as a verification may take.
_DECODE_TIMEOUT_S = 300.0
_LONGEST_S = 24 * 3600.0
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


class CollectedFiles:
    """Collects under numbered temporary names of one claim, and keeps the files until `close`.

    `slots` bounds the files in work of the whole process.
    """

    def __init__(
        self,
        ticket: Ticket,
        claim: Claim,
        *,
        collector: Collector,
        media: Media,
        slots: asyncio.Semaphore,
    ) -> None:
        self.ticket = ticket
        self._claim = claim
        self._collector = collector
        self._media = media
        self._slots = slots
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

    async def measure(self, file: DeliveredFile) -> Measured | None:
        """Collect the file and inspect it; None: it is not audio, or cannot be collected.

        Only a track that the file is matched to fails by what is wrong with it.

        Raises:
            Unavailable: the place, a disk or ffmpeg cannot be used now.
        """
        async with self._slots:
            try:
                path, _ = await self._collect(file)
                probed = await probe(path, self._media.find_tools(), {})
                duration_s = probed.duration_s or await self._decoded_s(path)
            except AttemptFailed as failure:
                log.info("delivered_file_unfit", file=file.name, why=failure.message)
                return None
        return Measured(probed=probed, duration_s=duration_s)

    async def _decoded_s(self, path: Path) -> float | None:
        try:
            async with asyncio.timeout(_DECODE_TIMEOUT_S):
                decoded = await decode(path, self._media.find_tools(), longest_s=_LONGEST_S)
        except TimeoutError:
            return None
        return decoded.seconds or None

    async def loudness(self, file: DeliveredFile) -> Sequence[float] | None:
        """The loudness of the decoded file, to compare recordings.

        None: it does not decode, or cannot be collected.

        Raises:
            Unavailable: the place, a disk or ffmpeg cannot be used now.
        """
        async with self._slots:
            try:
                path = await self._keep(file)
            except AttemptFailed as failure:
                log.info("delivered_file_unfit", file=file.name, why=failure.message)
                return None
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
            facts=await self.verified(file),
            tools=self._media.find_tools(),
            timeout_s=_CUT_TIMEOUT_S,
        )
        return "cut"

    async def _take_whole(self, file: DeliveredFile, temp: Path) -> str:
        path, how = self._kept.pop(file, (None, ""))
        if path is not None and await asyncio.to_thread(_renamed, path, temp):
            return how
        await asyncio.to_thread(self._media.root.still_there)
        return await self._collector.collect(self.ticket, file, temp)

    async def verified(self, file: DeliveredFile) -> AudioFacts:
        """The facts of the whole file, which is verified once.

        Raises:
            CorruptAudio: it is damaged.
            AttemptFailed, Unavailable: as `take`.
        """
        if file not in self._verified:
            path = await self._keep(file)
            async with self._slots:
                self._verified[file] = await verify(
                    path,
                    expected_ms=None,
                    tolerance_s=_ANY_LENGTH_S,
                    tools=self._media.find_tools(),
                )
        return self._verified[file]

    async def text(self, file: DeliveredFile) -> bytes:
        """The content of a small file.

        Raises:
            AttemptFailed, Unavailable: as `take`.
        """
        path, _ = await self._collect(file)
        with translated("reading a CUE sheet"):
            return await asyncio.to_thread(path.read_bytes)

    async def _keep(self, file: DeliveredFile) -> Path:
        """Where the collected file stays until `close`."""
        async with self._keeping:
            path, _ = self._kept.get(file, (None, ""))
            if path is None or not await asyncio.to_thread(path.exists):
                path, _ = await self._collect(file)
            return path

    async def _collect(self, file: DeliveredFile) -> tuple[Path, str]:
        await asyncio.to_thread(self._media.root.still_there)
        path = self._media.temp(self._claim, next(self._numbers))
        how = await self._collector.collect(self.ticket, file, path)
        self._kept[file] = (path, how)
        reached("fetcher.sampled")
        return path, how

    async def close(self) -> None:
        """Remove the files that were not taken."""
        kept, self._kept = self._kept, {}
        for path, _ in kept.values():
            await asyncio.to_thread(discard, path)


def _renamed(path: Path, temp: Path) -> bool:
    """Rename the file; False when the reaper has removed it, after the claim had ended."""
    with translated("naming a temporary file"):
        try:
            path.replace(temp)
        except FileNotFoundError:
            return False
    return True
