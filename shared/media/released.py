"""The facts of a file that an administrator has released although verification refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.errors import CorruptAudio
from shared.media.decode import decode
from shared.media.ffmpeg_write import SPARE_BYTES, command, write_audio
from shared.media.probe import probe
from shared.media.tools import AudioTools
from shared.media.verify import LONGEST_S, AudioFacts, facts_of, sha256_of, verify
from shared.threads import MEDIA

# Rules of verification that a release overrides: of its length, of damage, of its format. What
# breaks another one has no audio, or takes more of a decoder than music does.
_OF_LENGTH = frozenset({"wrong_length", "truncated", "decode_errors", "too_small"})
_OF_FORMAT = frozenset({"codec_not_allowed", "several_streams"})
# The last one is of a whole file that browsers do not play, and that is not to be converted.
RELEASABLE_RULES = _OF_LENGTH | _OF_FORMAT | {"not_playable"}

# Uncompressed: eight channels of 192 kHz with 32 bits.
_MOST_BYTES_PER_S = 8 * 192_000 * 4
_TIMEOUT_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The file to place, with its facts; `refusal`: what verification still says of it."""

    path: Path
    facts: AudioFacts
    refusal: CorruptAudio | None = None


async def accepted(path: Path, spare: Path, tools: AudioTools, *, tolerance_s: float) -> Accepted:
    """The released file, or where its format is not taken, its first stream as FLAC at `spare`.

    Raises:
        CorruptAudio: it breaks a rule that no release overrides.
        AttemptFailed: it cannot be read, or takes too long.
        Unavailable: a disk or ffmpeg cannot be used now.
    """
    try:
        facts = await verify(path, expected_ms=None, tolerance_s=tolerance_s, tools=tools)
    except CorruptAudio as corrupt:
        rule = corrupt.evidence.get("rule")
        if rule in _OF_LENGTH:
            return Accepted(path=path, facts=await _measured(path, tools), refusal=corrupt)
        if rule in _OF_FORMAT:
            facts = await _as_flac(path, spare, tools, tolerance_s=tolerance_s)
            return Accepted(path=spare, facts=facts, refusal=corrupt)
        raise
    return Accepted(path=path, facts=facts)


async def same_file(path: Path, sha256: str) -> bool:
    """Whether the file still has this content. Raises OSError."""
    return await MEDIA.run(sha256_of, path) == sha256


async def measured(path: Path, tools: AudioTools, *, tolerance_s: float) -> AudioFacts:
    """The facts of a released file that is in place.

    Raises:
        CorruptAudio, AttemptFailed, Unavailable: as `accepted`.
    """
    try:
        return await verify(path, expected_ms=None, tolerance_s=tolerance_s, tools=tools)
    except CorruptAudio:
        return await _measured(path, tools)


async def _measured(path: Path, tools: AudioTools) -> AudioFacts:
    """What the file says of itself, and how much of it decodes; its damage is left aside."""
    probed = await probe(path, tools, {})
    decoded = await decode(path, tools, longest_s=LONGEST_S, probed=probed)
    # A decode leaves damaged frames out; players keep their time.
    seconds = max(decoded.seconds, probed.duration_s or 0.0)
    return facts_of(
        probed,
        seconds,
        size_bytes=(await MEDIA.run(path.stat)).st_size,
        sha256=await MEDIA.run(sha256_of, path),
    )


async def _as_flac(path: Path, spare: Path, tools: AudioTools, *, tolerance_s: float) -> AudioFacts:
    decoded = await decode(path, tools, longest_s=LONGEST_S)
    arguments = await command(path, spare, tools, writing={"c:a": "flac", "f": "flac"})
    await write_audio(
        arguments,
        spare,
        tools,
        expected_s=decoded.seconds,
        most_bytes=int(decoded.seconds * _MOST_BYTES_PER_S) + SPARE_BYTES,
        timeout_s=_TIMEOUT_S,
    )
    return await verify(spare, expected_ms=None, tolerance_s=tolerance_s, tools=tools)
