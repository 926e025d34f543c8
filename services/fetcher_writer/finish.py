"""From the collected file to the one that is published: verified, and in the wanted format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.fetcher_writer.media import Media
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import ACTOR, Released, Work
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db import moves
from shared.db.claims import Claim
from shared.errors import AttemptFailed, CorruptAudio, DependencyDown, ErrorType
from shared.media.capabilities import capabilities
from shared.media.convert import Slots, convert
from shared.media.encoders import Plan, Target, plan, plays
from shared.media.place import written
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify
from shared.metrics import VERIFY_SECONDS
from shared.states import Stage
from shared.threads import MEDIA

log = structlog.get_logger()

_CHUNK_BYTES = 1 << 20
# Temporary files of a claim: collected files have the numbers from 1 on, and the item's own none.
CONVERTED = 0
_SHOWN_EVERY_S = 2.0
# An hour of music takes a minute or two, and longer on a busy machine.
_CONVERT_TIMEOUT_S = 1800.0
# Encoders delay and pad by much less.
_CONVERTED_TOLERANCE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A file at its temporary name, before it is verified."""

    path: Path
    how: str
    # Its name in the torrent.
    name: str


@dataclass(frozen=True, kw_only=True)
class Original:
    """The file that a converted one was made from, if it is kept."""

    path: Path
    ext: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A file that may get the track's name."""

    path: Path
    facts: AudioFacts
    how: str
    original: Original | None = None
    released: Released | None = None


async def verified(collected: Collected, work: Work, media: Media) -> AudioFacts:
    """The facts of the collected file, if it is the whole audio of the item's track.

    Raises:
        CorruptAudio: it is not.
        AttemptFailed: it cannot be read, or it was written to meanwhile.
        Unavailable: a disk or ffmpeg cannot be used now.
    """
    path, started = collected.path, time.monotonic()
    before = await MEDIA.run(written, path)
    try:
        facts = await verify(
            path,
            expected_ms=work.duration_ms,
            tolerance_s=media.tolerance_s,
            tools=media.find_tools(),
        )
    except CorruptAudio as corrupt:
        corrupt.evidence["file"] = collected.name[:500]
        corrupt.evidence["setting_s"] = media.tolerance_s
        if work.ticket.mode == "tickets" and await MEDIA.run(_only_zeros, path):
            # Torrentino placed it before the torrent was complete: the torrent is not at fault.
            raise AttemptFailed(
                ErrorType.STORAGE, "the file is all zeros: placed too early", corrupt.evidence
            ) from corrupt
        raise
    finally:
        VERIFY_SECONDS.observe(time.monotonic() - started)
    # A hard link shares its content with the file that Torrentino placed, and Torrentino writes
    # over that file for a second ticket with the same path.
    if await MEDIA.run(written, path) != before:
        raise AttemptFailed(
            ErrorType.STORAGE,
            "the file was written to while it was verified",
            {"file": collected.name[:500]},
        )
    return facts


def _only_zeros(path: Path) -> bool:
    """Whether the file has zeros only; False when it cannot be read."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                if chunk.count(0) != len(chunk):
                    return False
    except OSError:
        return False
    return True


class Converter:
    """Converts a verified file to the target's format, where that loses no quality in vain.

    With the target `original` it converts only what browsers do not play, or refuses that with
    AUDIO_PLAYABLE=refuse.

    `keep_originals`: whether the file that a converted one was made from is kept.
    """

    def __init__(
        self,
        store: Store,
        target: Target,
        *,
        keep_originals: bool,
        media: Media,
        announcer: Announcer,
    ) -> None:
        self._store = store
        self._target = target
        self._media = media
        self._keep_originals = keep_originals
        self._announcer = announcer
        self._slots = Slots()

    @property
    def converts(self) -> bool:
        """Whether any file may be converted, whatever its format."""
        return self._target.format != "original"

    async def finished(self, claim: Claim, collected: Collected, facts: AudioFacts) -> Finished:
        """The file as it is, or converted and verified again.

        Raises:
            CorruptAudio: browsers do not play it, and AUDIO_PLAYABLE refuses that.
            AttemptFailed: it cannot be converted.
            Unavailable: the disk is full or away, or this ffmpeg cannot do it.
            Stale: another worker has the item, or it was cancelled.
        """
        unchanged = Finished(path=collected.path, facts=facts, how=collected.how)
        playable = plays(facts)
        if playable and not self.converts:
            return unchanged
        planned = plan(facts, self._target, await capabilities(self._media.find_tools()))
        if planned is None and not playable:
            raise _not_playable(collected, facts)
        if planned is None:
            return unchanged
        why = "" if playable else ", because browsers do not play it"
        await self._begin(claim, f"converting {facts.codec} to {planned.codec}{why}")
        converted = await self._converted(claim, collected.path, facts, planned)
        original = Original(path=collected.path, ext=facts.ext) if self._keep_originals else None
        return Finished(
            path=self._media.temp(claim, CONVERTED),
            facts=converted,
            how="converted",
            original=original,
        )

    async def _begin(self, claim: Claim, reason: str) -> None:
        async with self._store.database.connection() as connection:
            await moves.advance(connection, [claim], Stage.CONVERTING, reason=reason, actor=ACTOR)
        reached("fetcher.converting")
        await self._announcer.announce()

    async def _converted(
        self, claim: Claim, source: Path, facts: AudioFacts, planned: Plan
    ) -> AudioFacts:
        target, tools = self._media.temp(claim, CONVERTED), self._media.find_tools()
        async with self._slots, self._progress(claim) as show:
            await convert(
                source,
                target,
                planned,
                tools,
                duration_s=facts.duration_ms / 1000,
                on_progress=show,
                timeout_s=_CONVERT_TIMEOUT_S,
            )
        converted = await _verified_again(target, facts, planned, tools)
        reached("fetcher.converted")
        return converted

    @asynccontextmanager
    async def _progress(self, claim: Claim) -> AsyncIterator[Callable[[float], None]]:
        """Gives a function that takes the percentage, which is written every two seconds."""
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


def _not_playable(collected: Collected, facts: AudioFacts) -> CorruptAudio:
    """The error for a whole file that is not placed; another release may have another format."""
    message = (
        f"browsers do not play {facts.codec} in {facts.container}, and AUDIO_PLAYABLE=refuse"
        " accepts only what they play: AUDIO_PLAYABLE=convert converts it"
    )
    evidence = {"rule": "not_playable", "file": collected.name[:500], "codec": facts.codec}
    return CorruptAudio(message, evidence | {"container": facts.container})


async def _verified_again(
    target: Path, facts: AudioFacts, planned: Plan, tools: AudioTools
) -> AudioFacts:
    """The facts of the converted file. The torrent is not at fault for what is wrong with it."""
    try:
        return await verify(
            target,
            expected_ms=facts.duration_ms,
            tolerance_s=_CONVERTED_TOLERANCE_S,
            tools=tools,
        )
    except CorruptAudio as corrupt:
        raise AttemptFailed(
            ErrorType.UNKNOWN,
            f"converted to {planned.codec} it does not verify: {corrupt.message}",
            corrupt.evidence,
        ) from corrupt
