"""Cutting one track out of a file that holds several, at the times that a CUE sheet names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.media.encoders import flac_rate
from shared.media.ffmpeg_write import SHORT_S, SPARE_BYTES, command, write_audio
from shared.media.formats import is_lossless
from shared.media.place import discard
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify
from shared.threads import MEDIA

# How far the length may be off: in samples next to nothing, in copied frames a few frames.
_SAMPLES_S = 0.05
_FRAMES_S = 0.1
# The first copied frames give less sound than they last: a decoder needs the frames before them,
# or skips some samples. So a part begins this much earlier, plus half a frame, and is then at most
# half a frame too early or too late. Measured against the source's samples.
_EARLIER_S = {"opus": 0.0165, "vorbis": 0.03}
_MP3_SKIPPED = 529  # samples by which an MP3 decoder is late, and which players skip
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
    """Write the part of `source` between two times to `target`, and return its facts.

    `facts` are what `verify` found in the source; without `end_s` the part goes to its end.
    Lossless audio becomes FLAC, exact to the sample, with the same rate (unless FLAC has no use
    for it: `flac_rate`), channels and depth. MP3,
    AAC, Vorbis and Opus are copied in their container, exact to the frame: nothing is encoded
    again. Tags are left out, for they describe the whole file. `target` is whole, verified and on
    disk when this returns, and not there when it raises or is cancelled.

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
        options = _exactly(facts, start_s=start_s, length_s=length_s)
    else:
        options = _in_frames(facts, start_s=start_s, end_s=end_s)
    await write_audio(
        await command(source, target, tools, writing=options),
        target,
        tools,
        expected_s=length_s,
        most_bytes=_most_bytes(facts, length_s),
        timeout_s=timeout_s,
        on_progress=on_progress,
        short_s=SHORT_S if exact else _FRAMES_S,
    )
    return await _verified(target, length_s, tools, timeout_s, exact=exact)


def _exactly(facts: AudioFacts, *, start_s: float, length_s: float) -> dict[str, object]:
    # All before the part is decoded and dropped, an hour in four seconds: ffmpeg 8.1 cannot seek in
    # a FLAC of large frames without a seek table, which few files have.
    options: dict[str, object] = {
        "ss": f"{start_s:.6f}",
        "t": f"{length_s:.6f}",
        "c:a": "flac",
        "compression_level": 8,
        "f": "flac",
        "map_metadata": -1,
    }
    _, filters = flac_rate(facts)
    if filters is not None:
        options["af"] = filters
    return options


def _in_frames(facts: AudioFacts, *, start_s: float, end_s: float | None) -> dict[str, object]:
    muxer = _MUXERS.get((facts.container, facts.codec))
    if muxer is None:
        message = f"{facts.codec} in {facts.container} cannot be cut without encoding it again"
        raise AttemptFailed(ErrorType.NOT_FOUND, message)
    # As output options: a seek in the input lands on another frame, in Ogg half a second away.
    options: dict[str, object] = {"c:a": "copy", "f": muxer, "map_metadata": -1}
    begin_s = start_s - _earlier_s(facts)
    if start_s and begin_s > 0:
        options["ss"] = f"{begin_s:.6f}"
    stop_s = _last_s(facts) if end_s is None else end_s
    if stop_s is not None:
        options["to"] = f"{stop_s:.6f}"
    return options


def _earlier_s(facts: AudioFacts) -> float:
    if facts.codec == "mp3":
        return (_MP3_SKIPPED + _frame_samples(facts) / 2) / facts.sample_rate_hz
    if facts.container == "mp4":
        return 512 / facts.sample_rate_hz
    return _EARLIER_S.get(facts.codec, 0.0)


def _last_s(facts: AudioFacts) -> float | None:
    """Where a part stops that goes to the end of the source; None: with the last frame."""
    if facts.codec != "mp3":
        return None
    # The last frame is mostly padding and marked so; ffmpeg 8.1 then writes a header that makes
    # players skip the first 0.1 s.
    return facts.duration_ms / 1000 - _frame_samples(facts) / facts.sample_rate_hz


def _frame_samples(facts: AudioFacts) -> int:
    return 1152 if facts.sample_rate_hz >= 32_000 else 576


def _most_bytes(facts: AudioFacts, length_s: float) -> int:
    samples = int(facts.sample_rate_hz * facts.channels * 4 * length_s)
    return (samples if is_lossless(facts.codec) else facts.size_bytes) + SPARE_BYTES


async def _verified(
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
        await MEDIA.run(discard, target)
        if exact:
            raise
        message = f"the part cannot be cut without encoding it again: {corrupt.message}"
        raise AttemptFailed(ErrorType.NOT_FOUND, message, corrupt.evidence) from corrupt
    except BaseException:
        await MEDIA.run(discard, target)
        raise
