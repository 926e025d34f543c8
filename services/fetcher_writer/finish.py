"""That a collected file is the right, whole audio."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from services.fetcher_writer.converting import Original
from services.fetcher_writer.work import Work
from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.matching.model import Offered
from shared.media.place import written
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify
from shared.metrics import VERIFY_SECONDS

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A file that passed its verification, and may get the track's name."""

    temp: Path
    facts: AudioFacts
    how: str
    # What it was made from, if that is to be kept.
    original: Original | None = None


async def prove(
    temp: Path, offer: Offered, work: Work, *, tolerance_s: float, tools: AudioTools
) -> AudioFacts:
    """What the file at `temp` is, if it is the item's track.

    Raises:
        CorruptAudio: it is not.
        AttemptFailed: it cannot be read, or was written to meanwhile.
        Unavailable: a disk or ffmpeg cannot be used now.
    """
    started, before = time.monotonic(), await asyncio.to_thread(written, temp)
    try:
        facts = await verify(
            temp, expected_ms=work.duration_ms, tolerance_s=tolerance_s, tools=tools
        )
    except CorruptAudio as corrupt:
        corrupt.evidence["file"] = offer.name[:500]
        if work.ticket.way == "tickets" and await asyncio.to_thread(_only_zeros, temp):
            # The torrent is none the worse for it: it was not whole yet when this was placed.
            raise AttemptFailed(
                ErrorType.STORAGE, "the file is all zeros: placed too early", corrupt.evidence
            ) from corrupt
        raise
    finally:
        VERIFY_SECONDS.observe(time.monotonic() - started)
    # A hard link is the very file that Torrentino placed. Should it have a second ticket with this
    # path, that one writes over it.
    if await asyncio.to_thread(written, temp) != before:
        raise AttemptFailed(
            ErrorType.STORAGE,
            "the file was written to while it was verified",
            {"file": offer.name[:500]},
        )
    return facts


def _only_zeros(path: Path) -> bool:
    """Whether nothing was ever written to the file; false when that cannot be told."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                if chunk.count(0) != len(chunk):
                    return False
    except OSError:
        return False
    return True
