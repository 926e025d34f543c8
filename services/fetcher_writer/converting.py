"""From the file that was verified to what AUDIO_FORMAT asks for, verified again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.fetcher_writer.store import Store
from shared.crashpoints import reached
from shared.db.items import Claim, advance
from shared.errors import AttemptFailed, CorruptAudio, DependencyDown, ErrorType
from shared.media.convert import Slots, convert
from shared.media.encoders import Plan, Target, capabilities, plan
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify
from shared.states import Stage

log = structlog.get_logger()

_SHOWN_EVERY_S = 2.0
# An hour of music takes a minute or two; on a machine that is busy with more than that, longer.
_TIMEOUT_S = 1800.0
# Encoders delay and pad, by much less than that.
_TOLERANCE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Original:
    """The file that a converted one was made from."""

    temp: Path
    ext: str


class Converter:
    """Converts what is not in the target's format and can be without pretending to be better."""

    def __init__(self, store: Store, target: Target, *, actor: str) -> None:
        self._store = store
        self._target = target
        self._actor = actor
        self._slots = Slots()

    @property
    def idle(self) -> bool:
        """Whether every file stays as it is."""
        return self._target.format == "original"

    async def convert(
        self, claim: Claim, source: Path, facts: AudioFacts, temp: Path, *, tools: AudioTools
    ) -> AudioFacts | None:
        """Write the verified `source` to `temp` in the target's format; None if it is to stay.

        Raises:
            AttemptFailed: it cannot be converted.
            Unavailable: the disk is full or away, or this ffmpeg cannot do it.
            Stale: the item is no longer ours.
        """
        if self.idle:
            return None
        planned = plan(facts, self._target, await capabilities(tools))
        if planned is None:
            return None
        async with self._store.database.connection() as connection:
            await advance(
                connection,
                claim,
                Stage.CONVERTING,
                reason=f"converting {facts.codec} to {planned.codec}",
                actor=self._actor,
            )
        reached("fetcher.converting")
        async with self._slots, self._shown(claim) as show:
            await convert(
                source,
                temp,
                planned,
                tools,
                duration_s=facts.duration_ms / 1000,
                on_progress=show,
                timeout_s=_TIMEOUT_S,
            )
        converted = await _verified(temp, facts, planned, tools)
        reached("fetcher.converted")
        return converted

    @asynccontextmanager
    async def _shown(self, claim: Claim) -> AsyncIterator[Callable[[float], None]]:
        """Gives a function that takes the percentage; it is written down every now and then."""
        percent = 0.0

        def show(now: float) -> None:
            nonlocal percent
            percent = now

        async def write() -> None:
            while True:
                await asyncio.sleep(_SHOWN_EVERY_S)
                try:
                    await self._store.converted(claim, round(percent, 1))
                except DependencyDown as down:
                    log.info("progress_not_written", item_id=claim.item_id, detail=down.detail)

        writing = asyncio.create_task(write(), name=f"progress of {claim.item_id}")
        try:
            yield show
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def _verified(temp: Path, facts: AudioFacts, planned: Plan, tools: AudioTools) -> AudioFacts:
    """The facts of what we made ourselves: what is wrong with it is no fault of the torrent."""
    try:
        return await verify(
            temp, expected_ms=facts.duration_ms, tolerance_s=_TOLERANCE_S, tools=tools
        )
    except CorruptAudio as corrupt:
        raise AttemptFailed(
            ErrorType.UNKNOWN,
            f"converted to {planned.codec} it does not verify: {corrupt.message}",
            corrupt.evidence,
        ) from corrupt
