"""One full decode by ffmpeg, as a child process that does not outlive the call."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from shared.errors import DependencyDown
from shared.media.ffmpeg_process import STOPPED, child_of, first_bytes
from shared.media.probe import DEMUXERS, source_name
from shared.media.tools import AudioTools

STDERR_LIMIT_BYTES = 64 * 1024
_KEPT_LINES = 20

# Complaints about tags and cover pictures: the music is whole without them.
_HARMLESS = re.compile(
    r"\[(mjpeg|jpegls|png|apng|gif|bmp|webp|tiff) @ [^]]*\]"
    r"|(\[[^]]*\] )?(Incorrect BOM value|Error reading (comment )?frame.*skipped)"
    r"|(\[[^]]*\] )?.*attached picture",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"\s*Last message repeated \d+ times")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How a decode ended. After a non-zero exit, `seconds` is what the last report said."""

    returncode: int
    seconds: float
    errors: tuple[str, ...]


def command(
    path: Path, tools: AudioTools, *, longest_s: float, end: int | None = None
) -> list[str]:
    """The arguments of a decode that stops at the first damage and counts what came out."""
    # Strict for the decoder only (`err_detect:a`): in the demuxer, `explode` would also turn down
    # a good song for a damaged cover. `crccheck` is what finds a single wrong bit in a FLAC.
    source = ffmpeg.input(
        source_name(path, end=end),
        **{
            "protocol_whitelist": "file" if end is None else "file,subfile",
            "format_whitelist": DEMUXERS,
            "err_detect:a": "crccheck+explode",
            # Several files are decoded side by side; threads for one would only cost memory.
            "threads": 1,
        },
    )
    # Samples are counted, not timestamps read: those jump over missing audio as if it were there.
    output = source.output(
        "-", format="null", map="0:a:0", af="asetpts=N/SR/TB", t=longest_s, progress="pipe:1"
    ).global_args("-nostdin", "-hide_banner", "-v", "error", "-xerror")
    compiled: list[str] = ffmpeg.compile(output, cmd=tools.ffmpeg)
    return compiled


async def decode(
    path: Path, tools: AudioTools, *, longest_s: float, end: int | None = None
) -> Decoded:
    """Decode the first audio stream of `path`, up to `longest_s`, and throw the samples away.

    What lies behind `end`, in bytes, is not read.

    The child is killed when the call is cancelled, so a deadline around it is enough.

    Raises:
        Misconfigured: ffmpeg does not start.
        DependencyDown: somebody stopped ffmpeg; the file is not to blame.
    """
    async with child_of(command(path, tools, longest_s=longest_s, end=end)) as child:
        seconds, (stderr, flooded) = await asyncio.gather(
            last_position(child),
            first_bytes(child, child.stderr, most_bytes=STDERR_LIMIT_BYTES),
        )
        returncode = await child.wait()
    errors = serious_lines(stderr.decode("utf-8", "replace"))
    if flooded:
        errors = errors or ("more complaints than were read",)
    # 255 is how ffmpeg itself ends after SIGTERM; it turns a file down with other numbers.
    if (returncode in STOPPED or returncode == 255) and not errors:
        raise DependencyDown("ffmpeg", f"ffmpeg was stopped from outside (exit {returncode})")
    return Decoded(returncode=returncode, seconds=seconds, errors=errors)


def serious_lines(stderr: str) -> tuple[str, ...]:
    """The lines that tell of damaged audio, the first few of them."""
    serious: list[str] = []
    harmless = False
    for line in stderr.splitlines():
        if not _REPEATED.match(line):
            harmless = bool(_HARMLESS.match(line))
        if line.strip() and not harmless:
            serious.append(line[:300])
    return tuple(serious[:_KEPT_LINES])


async def last_position(
    child: Process, on_position: Callable[[float], None] = lambda _: None
) -> float:
    """Read `-progress pipe:1` to its end: the last position in seconds, and each one on the way."""
    assert child.stdout is not None
    last = 0.0
    async for line in child.stdout:
        name, _, value = line.strip().partition(b"=")
        if name == b"out_time_us" and value.isdigit():
            last = int(value) / 1_000_000
            on_position(last)
    return last
