"""One track out of a file that holds several, as a CUE sheet says where it lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.media.encoders import is_lossless
from shared.media.ffmpeg_write import SHORT_S, SPARE_BYTES, command, write_audio
from shared.media.place import discard
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify

# How far the length may be off: not at all in samples, and by whole frames in what is copied.
_SAMPLES_S = 0.05
_FRAMES_S = 0.1
# Of copied frames the first few give less sound than they last: a decoder has nothing before them
# to build on, or is told to skip some. So a part begins this much earlier, by half a frame more,
# and is then at most half a frame too early or too late. Measured against the source's samples.
_EARLIER_S = {"opus": 0.0165, "vorbis": 0.03}
_MP3_SKIPPED = 529  # samples that an MP3 decoder is late by, and that players leave out
_MUXERS = {
    ("mp3", "mp3"): "mp3",
    ("mp4", "aac"): "ipod",
    ("adts", "aac"): "adts",
    ("ogg", "vorbis"): "ogg",
    ("ogg", "opus"): "opus",
}


async def cut(
    source: Path,
    target: Path,
    *,
    start_s: float,
    end_s: float | None,
    facts: AudioFacts,
    tools: AudioTools,
    timeout_s: float,
    on_progress: Callable[[float], None] | None = None,
) -> AudioFacts:
    """Write what lies between two moments of `source` to `target`, and return what it is.

    `facts` are what `verify` found in the source; without `end_s` the part goes to its end. What
    is lossless becomes FLAC, exact to the sample, with rate, channels and depth as they are. MP3,
    AAC, Vorbis and Opus are copied, exact to the frame, in their own container: nothing is encoded
    a second time. No tags are taken along, for they are those of the whole. `target` is whole,
    verified and on disk when this returns, and not there when it raises or is cancelled.

    Raises:
        AttemptFailed: there is no such part (`not_found`), the format cannot be cut without
            loss (`not_found`), or it took longer than `timeout_s`.
        CorruptAudio: the part of the source is damaged.
        DependencyDown: the disk is full or away, or ffmpeg was stopped from outside.
        Misconfigured: ffmpeg does not start.
    """
    whole_s = facts.duration_ms / 1000
    until_s = whole_s if end_s is None else min(end_s, whole_s)
    if not 0 <= start_s < until_s - _FRAMES_S:
        message = f"the file of {whole_s:.1f} s has no part that begins at {start_s:.1f} s"
        raise AttemptFailed(ErrorType.NOT_FOUND, message)
    length_s = until_s - start_s
    exact = is_lossless(facts.codec)
    if exact:
        arguments = _exactly(source, target, tools, start_s=start_s, length_s=length_s)
    else:
        arguments = _in_frames(source, target, tools, facts, start_s=start_s, end_s=end_s)
    await write_audio(
        arguments,
        target,
        expected_s=length_s,
        most_bytes=_most_bytes(facts, length_s),
        timeout_s=timeout_s,
        on_progress=on_progress,
        short_s=SHORT_S if exact else _FRAMES_S,
    )
    return await _proven(target, length_s, tools, timeout_s, exact=exact)


def _exactly(
    source: Path, target: Path, tools: AudioTools, *, start_s: float, length_s: float
) -> list[str]:
    # All before it is decoded and dropped, an hour in four seconds: ffmpeg (8.1) does not find its
    # way in a FLAC of large frames without a table for it, which few have.
    return command(
        source,
        target,
        tools,
        writing={
            "ss": f"{start_s:.6f}",
            "t": f"{length_s:.6f}",
            "c:a": "flac",
            "compression_level": 8,
            "f": "flac",
            "map_metadata": -1,
        },
    )


def _in_frames(
    source: Path,
    target: Path,
    tools: AudioTools,
    facts: AudioFacts,
    *,
    start_s: float,
    end_s: float | None,
) -> list[str]:
    muxer = _MUXERS.get((facts.container, facts.codec))
    if muxer is None:
        message = f"{facts.codec} in {facts.container} cannot be cut without encoding it again"
        raise AttemptFailed(ErrorType.NOT_FOUND, message)
    # Behind the input: a jump would land on another frame, in Ogg half a second away.
    options: dict[str, object] = {"c:a": "copy", "f": muxer, "map_metadata": -1}
    begin_s = start_s - _earlier_s(facts)
    if start_s and begin_s > 0:
        options["ss"] = f"{begin_s:.6f}"
    stop_s = _last_s(facts) if end_s is None else end_s
    if stop_s is not None:
        options["to"] = f"{stop_s:.6f}"
    return command(source, target, tools, writing=options)


def _earlier_s(facts: AudioFacts) -> float:
    if facts.codec == "mp3":
        return (_MP3_SKIPPED + _frame_samples(facts) / 2) / facts.sample_rate_hz
    if facts.container == "mp4":
        return 512 / facts.sample_rate_hz
    return _EARLIER_S.get(facts.codec, 0.0)


def _last_s(facts: AudioFacts) -> float | None:
    """Where a part that goes to the end of the source stops; None: with its last frame."""
    if facts.codec != "mp3":
        return None
    # Its last frame is mostly padding and says so; ffmpeg (8.1) then writes a header that makes
    # players skip the first 0.1 s.
    return facts.duration_ms / 1000 - _frame_samples(facts) / facts.sample_rate_hz


def _frame_samples(facts: AudioFacts) -> int:
    return 1152 if facts.sample_rate_hz >= 32_000 else 576


def _most_bytes(facts: AudioFacts, length_s: float) -> int:
    samples = int(facts.sample_rate_hz * facts.channels * 4 * length_s)
    return (samples if is_lossless(facts.codec) else facts.size_bytes) + SPARE_BYTES


async def _proven(
    target: Path, length_s: float, tools: AudioTools, timeout_s: float, *, exact: bool
) -> AudioFacts:
    try:
        return await verify(
            target,
            expected_ms=round(length_s * 1000),
            tolerance_s=_SAMPLES_S if exact else _FRAMES_S,
            tools=tools,
            timeout_s=timeout_s,
        )
    except CorruptAudio as corrupt:
        await asyncio.to_thread(discard, target)
        if exact:
            raise
        message = f"the part cannot be cut without encoding it again: {corrupt.message}"
        raise AttemptFailed(ErrorType.NOT_FOUND, message, corrupt.evidence) from corrupt
    except BaseException:
        await asyncio.to_thread(discard, target)
        raise
