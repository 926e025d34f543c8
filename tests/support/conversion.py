"""What the conversion tests share: sources of any format, and one conversion, checked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.media.capabilities import capabilities
from shared.media.convert import convert
from shared.media.encoders import Plan, Target, plan
from shared.media.tools import find_tools
from shared.media.verify import AudioFacts, verify

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 6: "5.1", 8: "7.1"}
# Our name -> encoder and container of ffmpeg.
ENCODERS: Mapping[str, tuple[str, ...]] = {
    "flac": ("-c:a", "flac", "-sample_fmt", "s16", "-f", "flac"),
    "flac24": ("-c:a", "flac", "-sample_fmt", "s32", "-f", "flac"),
    "flac32": (
        *("-c:a", "flac", "-strict", "experimental", "-bits_per_raw_sample", "32"),
        "-f",
        "flac",
    ),
    "ogg_flac": ("-c:a", "flac", "-sample_fmt", "s16", "-f", "ogg"),
    "alac": ("-c:a", "alac", "-sample_fmt", "s16p", "-f", "ipod"),
    "alac24": ("-c:a", "alac", "-sample_fmt", "s32p", "-f", "ipod"),
    "wavpack": ("-c:a", "wavpack", "-sample_fmt", "s16p", "-f", "wv"),
    "wav": ("-c:a", "pcm_s16le", "-f", "wav"),
    "wav_float": ("-c:a", "pcm_f32le", "-f", "wav"),
    "wav_double": ("-c:a", "pcm_f64le", "-f", "wav"),
    "mp3": ("-c:a", "libmp3lame", "-b:a", "128k", "-f", "mp3"),
    "aac": ("-c:a", "aac", "-b:a", "128k", "-f", "ipod"),
    "adts": ("-c:a", "aac", "-b:a", "128k", "-f", "adts"),
    "opus": ("-c:a", "libopus", "-b:a", "96k", "-f", "opus"),
    "vorbis": ("-c:a", "vorbis", "-strict", "-2", "-q:a", "2", "-f", "ogg"),
    "wma1": ("-c:a", "wmav1", "-b:a", "128k", "-f", "asf"),
    "wma": ("-c:a", "wmav2", "-b:a", "128k", "-f", "asf"),
}
TAGS = {"title": "Träumerei", "artist": "Somebody", "track": "7"}


@dataclass(frozen=True)
class Source:
    """A file to be made: every channel another tone, or loud white noise."""

    kind: str
    rate_hz: int = 44_100
    channels: int = 2
    cover: bool = False
    seconds: float = 1.0
    noise: bool = False


class Sources:
    """Makes each source when it is first asked for; `facts` are what `verify` finds in it.

    Each ffmpeg has its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._facts: dict[Path, AudioFacts] = {}

    def path(self, source: Source) -> Path:
        path = self._folder / f"{abs(hash((source, find_tools())))}"
        if not path.exists():
            write(source, path)
        return path

    async def facts(self, source: Source) -> AudioFacts:
        path = self.path(source)
        if path not in self._facts:
            self._facts[path] = await check(path, seconds=source.seconds)
        return self._facts[path]


def write(source: Source, path: Path) -> None:
    """Have ffmpeg make it, tagged with `TAGS`."""
    tones = "|".join(
        f"0.2*sin({300 + 90 * n}*2*PI*t)" if not source.noise else f"random({n})*1.8-0.9"
        for n in range(source.channels)
    )
    layout = LAYOUTS[source.channels]
    sound = f"aevalsrc={tones}:s={source.rate_hz}:c={layout}:d={source.seconds}"
    picture = ("-f", "lavfi", "-i", "color=c=teal:s=64x64:r=25:d=0.04") if source.cover else ()
    attached = ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-disposition:v", "attached_pic")
    run(
        *("-f", "lavfi", "-i", sound, *picture, *(attached if source.cover else ())),
        *(part for name, value in TAGS.items() for part in ("-metadata", f"{name}={value}")),
        *(*ENCODERS[source.kind], str(path)),
    )


def run(*arguments: str) -> bytes:
    """One call of ffmpeg that has to succeed; returns what it printed."""
    ffmpeg = (find_tools().ffmpeg, "-v", "error", "-nostdin", "-y", "-threads", "1")
    return subprocess.run((*ffmpeg, *arguments), check=True, capture_output=True).stdout


def samples(path: Path, *more: str) -> bytes:
    """What it decodes to, as 16-bit samples."""
    return run("-i", str(path), *more, "-f", "s16le", "-")


def samples32(path: Path) -> bytes:
    """What it decodes to, as 32-bit samples."""
    return run("-i", str(path), "-f", "s32le", "-")


def probed(path: Path) -> dict[str, Any]:
    """Everything that ffprobe says."""
    command = (find_tools().ffprobe, "-v", "error", "-show_format", "-show_streams", "-of", "json")
    answer = subprocess.run((*command, str(path)), check=True, capture_output=True).stdout
    parsed: dict[str, Any] = json.loads(answer)
    return parsed


def tags_in(path: Path) -> dict[str, str]:
    """The text tags, wherever the container keeps them, with small names."""
    found = probed(path)
    every = found["format"].get("tags", {}) | found["streams"][0].get("tags", {})
    return {name.lower(): value for name, value in every.items()}


async def check(path: Path, *, seconds: float, tolerance_s: float = 0.1) -> AudioFacts:
    """`verify`, with a length that has to be right within an encoder's delay."""
    return await verify(
        path, expected_ms=round(seconds * 1000), tolerance_s=tolerance_s, tools=find_tools()
    )


async def planned(facts: AudioFacts, target: Target) -> Plan | None:
    """The plan with the ffmpeg at hand."""
    return plan(facts, target, await capabilities(find_tools()))


async def converted(sources: Sources, source: Source, target: Target, path: Path) -> AudioFacts:
    """The facts of `source` after the conversion that is planned for it, which must be one."""
    facts = await sources.facts(source)
    made = await planned(facts, target)
    assert made is not None
    await convert(
        sources.path(source),
        path,
        made,
        find_tools(),
        duration_s=facts.duration_ms / 1000,
        timeout_s=60,
    )
    found = await check(path, seconds=source.seconds)
    assert (found.ext, found.codec, found.container) == (made.ext, made.codec, made.container)
    assert (found.sample_rate_hz, found.channels) == (made.sample_rate_hz, made.channels)
    return found
