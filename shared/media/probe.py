"""What a file says of itself: ffprobe's answer, and a few bytes that ffprobe does not report."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.media import formats
from shared.media.extent import Extent, extent_of
from shared.media.ffmpeg_process import KILLED, KILLED_TWICE, STOPPED, child_of, first_bytes
from shared.media.tails import audio_start
from shared.media.tools import AudioTools
from shared.media.variants import variant_of
from shared.threads import MEDIA

# A file's description is a few kilobytes, with long lyrics some hundred.
_ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
# Reading it takes 0.1 s of a processor, on slow ones 0.5 s. A tag of 60,000 fields takes 30 s.
CPU_S = 10
# The rest is for a disk that is slow, or busy.
_TIMEOUT_S = 60.0

# Beyond all music, and beyond what a decoder may be made to reserve for: 22.2 sound has 24
# channels, DSD1024 has 45 MHz. A FLAC frame has up to 65,535 samples, an ALAC frame 4,096.
_MOST_CHANNELS = 24
_MOST_RATE_HZ = 45_158_400
_MOST_BITS_PER_S = 1_000_000_000
_MOST_PACKET_SAMPLES = 65_536
# Where an ALAC header has the samples of a packet, in hexadecimal digits.
_ALAC_SAMPLES = slice(24, 32)

# The tags that are kept, and their longest text in characters; a longer sheet is none.
_TAGS: Mapping[str, int] = {"title": 500, "track": 500, "disc": 500, "cuesheet": 256 * 1024}


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What the file says of itself; the decode has to confirm it.

    `duration_s` is that of `extent`.
    """

    container: str
    codec: str
    ext: str
    duration_s: float | None
    bitrate_bps: int | None
    sample_rate_hz: int
    channels: int
    # Of lossless audio; None where ffprobe does not say.
    sample_bits: int | None
    extent: Extent
    # "title", "track", "disc" and "cuesheet", where the file has them.
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)


def refuse(evidence: Mapping[str, object], rule: str, message: str) -> CorruptAudio:
    """The error for a file that breaks `rule`, with the evidence so far."""
    return CorruptAudio(message, {**evidence, "rule": rule})


def source_name(path: Path, *, start: int = 0, end: int | None = None) -> str:
    """The path for ffmpeg, with any characters; read from `start` up to `end` bytes, if given."""
    if not start and end is None:
        return f"file:{path}"
    return f"subfile,,start,{start},end,{end or 0},,:file:{path}"


def protocols(source: str) -> str:
    """What ffmpeg has to be allowed for such a name."""
    return "file" if source.startswith("file:") else "file,subfile"


async def probe(path: Path, tools: AudioTools, evidence: dict[str, object]) -> ProbeResult:
    """Run ffprobe, and add to `evidence`. The child is killed when the call is cancelled.

    Raises:
        CorruptAudio: no audio, a video, a container and codec that are not allowed, numbers that no
            music has, or more work or memory than the description of music needs.
        AttemptFailed: ffprobe was stopped from outside, or did not end within its deadline.
        Misconfigured: ffprobe does not start.
    """
    start = await MEDIA.run(audio_start, path)
    # Not up to the end: the title may be in a tag behind the audio.
    answer = await _answer(source_name(path, start=start), tools, evidence)
    streams: list[dict[str, Any]] = answer.get("streams", [])
    container = str(answer.get("format", {}).get("format_name", ""))
    audio = [s for s in streams if s.get("codec_type") == "audio"]
    evidence["container"] = container
    evidence["codec"] = ",".join(str(s.get("codec_name")) for s in audio) or None
    if any(_is_video(s) for s in streams):
        raise refuse(evidence, "video", "the file is a video, not a song")
    usable = [s for s in audio if _number(s.get("sample_rate")) and _number(s.get("channels"))]
    if not usable:
        raise refuse(evidence, "not_audio", "the file holds no audio that could be played")
    if len(audio) > 1:
        raise refuse(evidence, "several_streams", f"the file holds {len(audio)} audio streams")
    _require_possible(usable[0], evidence)
    return await MEDIA.run(_result, path, start, answer, usable[0], evidence)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """How ffprobe ended."""

    returncode: int
    answer: bytes
    flooded: bool
    text: str


async def _answer(source: str, tools: AudioTools, evidence: Mapping[str, object]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            run = await _ffprobe(source, tools)
            if run.returncode == KILLED and not run.flooded:
                run = await _ffprobe(source, tools)
    except TimeoutError as exc:
        message = f"ffprobe took longer than {_TIMEOUT_S:g} s"
        raise AttemptFailed(ErrorType.TIMEOUT, message, evidence) from exc
    if run.flooded:
        raise refuse(evidence, "not_audio", "the file has a longer description than a song has")
    if run.returncode == KILLED:
        raise refuse(evidence, "too_much_memory", KILLED_TWICE)
    if run.returncode == -signal.SIGXCPU:
        message = f"its description takes more than {CPU_S} s of a processor to read"
        raise refuse(evidence, "too_much_work", message)
    if run.returncode:
        # ffprobe always prints why it rejects a file: without text, a signal has ended it.
        if not run.text and run.returncode in STOPPED:
            message = "ffprobe was stopped before it answered"
            raise AttemptFailed(ErrorType.UNKNOWN, message, evidence)
        raise _rejected(run.text or f"it ended with {run.returncode}", evidence)
    return _parsed(run.answer, evidence)


async def _ffprobe(source: str, tools: AudioTools) -> _Run:
    command = (
        *(tools.ffprobe, "-v", "error", "-show_format", "-show_streams", "-show_data"),
        *("-of", "json", "-protocol_whitelist", protocols(source)),
        *("-format_whitelist", formats.DEMUXERS, source),
    )
    async with child_of(command, memory_bytes=tools.memory_bytes, cpu_s=CPU_S) as child:
        (answer, flooded), (stderr, _) = await asyncio.gather(
            first_bytes(child, child.stdout, most_bytes=_ANSWER_LIMIT_BYTES),
            first_bytes(child, child.stderr, most_bytes=_ANSWER_LIMIT_BYTES),
        )
        returncode = await child.wait()
    text = stderr[-2000:].decode("utf-8", "replace").strip()
    return _Run(returncode=returncode, answer=answer, flooded=flooded, text=text)


def _require_possible(stream: Mapping[str, Any], evidence: Mapping[str, object]) -> None:
    """Refuse numbers that no music has, before a decoder reserves memory by them."""
    limits = (
        ("channels", _number(stream.get("channels")), _MOST_CHANNELS),
        ("samples a second", _number(stream.get("sample_rate")), _MOST_RATE_HZ),
        ("bits a second", _number(stream.get("bit_rate")), _MOST_BITS_PER_S),
        ("samples a packet", _packet_samples(stream), _MOST_PACKET_SAMPLES),
    )
    for what, announced, most in limits:
        if announced is not None and announced > most:
            message = f"it announces {announced:.0f} {what}; music has at most {most}"
            raise refuse(evidence, "absurd", message)


def _packet_samples(stream: Mapping[str, Any]) -> int | None:
    """How many samples a packet may have, where the file says it and the decoder believes it."""
    if stream.get("codec_name") != "alac":
        return None
    # Lines of 16 bytes: an offset, their digits in groups of four, and the same as text.
    lines = str(stream.get("extradata", "")).splitlines()
    digits = "".join(line[10:50].replace(" ", "") for line in lines)
    try:
        return int(digits[_ALAC_SAMPLES], 16)
    except ValueError:
        return None


def _parsed(answer: bytes, evidence: Mapping[str, object]) -> dict[str, Any]:
    try:
        parsed = json.loads(answer.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise refuse(evidence, "not_audio", "ffprobe's answer cannot be read") from exc
    assert isinstance(parsed, dict)
    return parsed


def _rejected(text: str, evidence: Mapping[str, object]) -> CorruptAudio:
    seen = {**evidence, "decoder_errors": text.splitlines()[:5]}
    if "not on whitelist" in text:
        return refuse(seen, "codec_not_allowed", "the file is in a container that is not allowed")
    return refuse(seen, "not_audio", f"ffprobe does not recognise audio: {text.splitlines()[-1]}")


def _result(
    path: Path,
    start: int,
    answer: dict[str, Any],
    stream: dict[str, Any],
    evidence: dict[str, object],
) -> ProbeResult:
    row, codec = variant_of(path, str(evidence["container"]), str(stream.get("codec_name")))
    ext = None if row is None else row.codecs.get(formats.PCM if codec[:4] == "pcm_" else codec)
    if row is None or ext is None:
        raise refuse(
            evidence, "codec_not_allowed", f"{codec} in {evidence['container']} is not allowed"
        )
    form = answer.get("format", {})
    container = row.name
    duration = _number(stream.get("duration")) or _number(form.get("duration"))
    if duration and (container, codec) == ("ogg", "opus"):
        # It is told when the stream ends, and one out of a broadcast begins late.
        duration -= _number(stream.get("start_time")) or 0
    extent = extent_of(path, container, start, duration if row.states_length else None)
    evidence["container"], evidence["container_s"] = container, extent.duration_s
    return ProbeResult(
        container=container,
        codec=codec,
        ext=ext,
        duration_s=extent.duration_s,
        bitrate_bps=int(_number(stream.get("bit_rate")) or 0) or None,
        sample_rate_hz=int(_number(stream["sample_rate"]) or 0),
        channels=int(_number(stream["channels"]) or 0),
        sample_bits=int(_number(stream.get("bits_per_raw_sample")) or 0) or None,
        extent=extent,
        tags=_tags(form, stream),
    )


def _tags(*places: Mapping[str, Any]) -> dict[str, str]:
    """The tags, of the file or, in Ogg, of the stream; names in lower case."""
    found = {
        name.lower(): value
        for place in places
        for name, value in place.get("tags", {}).items()
        if isinstance(value, str)
    }
    return {name: found[name][:most] for name, most in _TAGS.items() if name in found}


def _is_video(stream: Mapping[str, Any]) -> bool:
    picture = stream.get("disposition", {}).get("attached_pic")
    return stream.get("codec_type") == "video" and not picture


def _number(value: object) -> float | None:
    """ffprobe writes numbers as text, and unknown ones as "N/A" or not at all."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None
