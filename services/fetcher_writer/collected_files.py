"""Files of one ticket that were collected to be looked at, each at most once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.work import Ticket
from shared.crashpoints import reached
from shared.db.items import Claim
from shared.db.media_root import MediaRoot
from shared.errors import AttemptFailed
from shared.media.decode import decode
from shared.media.paths import temp_file
from shared.media.place import discard, translated
from shared.media.probe import ProbeResult, read_claims
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify

log = structlog.get_logger()

# What announces no length is decoded to measure it: not for longer than a verification takes.
_DECODE_TIMEOUT_S = 300.0
_LONGEST_S = 24 * 3600.0
# How far a file may be from what it announces, when nobody knows how long it should be.
_ANY_LENGTH_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a file says of itself; its length is None when even a decode does not tell."""

    claims: ProbeResult
    duration_s: float | None


class Samples:
    """Collects under numbered names of one item's claim, and keeps what is not taken until `close`.

    `slots` bounds the files in hand of the whole process.
    """

    def __init__(
        self,
        ticket: Ticket,
        claim: Claim,
        *,
        collector: Collector,
        root: MediaRoot,
        slots: asyncio.Semaphore,
        tools: Callable[[], AudioTools],
    ) -> None:
        self._ticket = ticket
        self._claim = claim
        self._collector = collector
        self._root = root
        self._slots = slots
        self._tools = tools
        self._numbers = itertools.count(1)
        self._kept: dict[DeliveredFile, tuple[Path, str]] = {}
        self._keeping = asyncio.Lock()
        self._proven: dict[DeliveredFile, AudioFacts] = {}

    def come_from(self, ticket: Ticket) -> None:
        """Collect from there: it is known by now where its files are."""
        self._ticket = ticket

    async def look(self, file: DeliveredFile) -> Look | None:
        """Collect the file and ask what it is; None: it is no audio, or cannot be had.

        What is wrong with it, is told to whoever takes it for a track.

        Raises:
            Unavailable: the place, a disk or ffmpeg cannot be used now.
        """
        async with self._slots:
            try:
                path, _ = await self._collect(file)
                claims = await read_claims(path, self._tools(), {})
                return Look(
                    claims=claims, duration_s=claims.duration_s or await self._decoded(path)
                )
            except AttemptFailed as failure:
                log.info("delivered_file_unfit", file=file.name, why=failure.message)
                return None

    async def _decoded(self, path: Path) -> float | None:
        try:
            async with asyncio.timeout(_DECODE_TIMEOUT_S):
                decoded = await decode(path, self._tools(), longest_s=_LONGEST_S)
        except TimeoutError:
            return None
        return decoded.seconds or None

    async def take(self, file: DeliveredFile, temp: Path) -> str:
        """Put the file at `temp`, without collecting it a second time; returns how it came.

        Raises:
            AttemptFailed: the file is gone or is not what the listing said.
            Unavailable: the place or our disk cannot do it now.
        """
        path, how = self._kept.pop(file, (None, ""))
        if path is not None and await asyncio.to_thread(_renamed, path, temp):
            return how
        await asyncio.to_thread(self._root.still_there)
        return await self._collector.collect(self._ticket, file, temp)

    async def keep(self, file: DeliveredFile) -> Path:
        """Where the file is until `close`, for those who need parts of it.

        Raises:
            AttemptFailed, Unavailable: as `take`.
        """
        async with self._keeping:
            path, _ = self._kept.get(file, (None, ""))
            if path is None or not await asyncio.to_thread(path.exists):
                path, _ = await self._collect(file)
            return path

    async def prove(self, file: DeliveredFile) -> AudioFacts:
        """What the whole file is, found out once.

        Raises:
            CorruptAudio: it is damaged.
            AttemptFailed, Unavailable: as `take`.
        """
        if file not in self._proven:
            path = await self.keep(file)
            async with self._slots:
                self._proven[file] = await verify(
                    path, expected_ms=None, tolerance_s=_ANY_LENGTH_S, tools=self._tools()
                )
        return self._proven[file]

    async def text(self, file: DeliveredFile) -> bytes:
        """All of a small file.

        Raises:
            AttemptFailed, Unavailable: as `take`.
        """
        path, _ = await self._collect(file)
        with translated("reading a CUE sheet"):
            return await asyncio.to_thread(path.read_bytes)

    async def _collect(self, file: DeliveredFile) -> tuple[Path, str]:
        await asyncio.to_thread(self._root.still_there)
        path = temp_file(
            self._root.path, self._claim.item_id, self._claim.fence, next(self._numbers)
        )
        how = await self._collector.collect(self._ticket, file, path)
        self._kept[file] = (path, how)
        reached("fetcher.sampled")
        return path, how

    async def close(self) -> None:
        """Remove what nobody has taken."""
        kept, self._kept = self._kept, {}
        for path, _ in kept.values():
            await asyncio.to_thread(discard, path)


def _renamed(path: Path, temp: Path) -> bool:
    """Whether the file was there still; the reaper may have taken it from a claim that ended."""
    with translated("naming a temporary file"):
        try:
            path.replace(temp)
        except FileNotFoundError:
            return False
    return True
