"""The full decode of a file by ffmpeg, in a child process that ends with the call."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ffmpeg

from shared.errors import DependencyDown
from shared.media.ffmpeg_process import KILLED, KILLED_TWICE, STOPPED, child_of, first_bytes
from shared.media.formats import DEMUXERS
from shared.media.probe import source_name
from shared.media.tools import AudioTools

STDERR_LIMIT_BYTES = 64 * 1024
_KEPT_LINES = 20

# Complaints about tags and cover pictures: the audio is whole.
_HARMLESS = re.compile(
    r"\[(mjpeg|jpegls|png|apng|gif|bmp|webp|tiff) @ [^]]*\]"
    r"|(\[[^]]*\] )?(Incorrect BOM value|Error reading (comment )?frame.*skipped)"
    r"|(\[[^]]*\] )?.*attached picture",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"\s*Last message repeated \d+ times")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How a decode ended. After a non-zero exit, `seconds` is of the last progress report."""

    returncode: int
    seconds: float
    errors: tuple[str, ...]


def command(
    path: Path, tools: AudioTools, *, longest_s: float, end: int | None = None
) -> list[str]:
    """The arguments of a decode that stops at the first damage and counts what came out."""
    # Strict for the decoder only (`err_detect:a`): in the demuxer, `explode` would also reject good
    # audio for a damaged cover. `crccheck` finds a single wrong bit in a FLAC.
    source = ffmpeg.input(
        source_name(path, end=end),
        **{
            "protocol_whitelist": "file" if end is None else "file,subfile",
            "format_whitelist": DEMUXERS,
            "err_detect:a": "crccheck+explode",
            # Several files are decoded at once; more threads for one only cost memory.
            "threads": 1,
        },
    )
    # Count samples: timestamps jump over missing audio as if it were there.
    output = source.output(
        "-", format="null", map="0:a:0", af="asetpts=N/SR/TB", t=longest_s, progress="pipe:1"
    ).global_args("-nostdin", "-hide_banner", "-v", "error", "-xerror")
    compiled: list[str] = ffmpeg.compile(output, cmd=tools.ffmpeg)
    return compiled


async def decode(
    path: Path, tools: AudioTools, *, longest_s: float, end: int | None = None
) -> Decoded:
    """Decode the first audio stream of `path`, up to `longest_s`, and throw the samples away.

    Bytes behind `end` are not read. The child is killed when the call is cancelled, so a deadline
    around the call is enough. A decode that the kernel kills is tried once more.

    Raises:
        Misconfigured: ffmpeg does not start.
        DependencyDown: ffmpeg was stopped from outside; the file is not at fault.
    """
    arguments = command(path, tools, longest_s=longest_s, end=end)
    decoded = await _decoded(arguments, tools)
    if decoded.returncode == KILLED and not decoded.errors:
        decoded = with_reason(await _decoded(arguments, tools))
    if decoded.returncode in STOPPED and not decoded.errors:
        message = f"ffmpeg was stopped from outside (exit {decoded.returncode})"
        raise DependencyDown("ffmpeg", message)
    return decoded


def with_reason(second: Decoded) -> Decoded:
    """A second try, with what is wrong with the file if it was killed as the first one was."""
    if second.returncode == KILLED and not second.errors:
        return replace(second, errors=(KILLED_TWICE,))
    return second


async def _decoded(arguments: Sequence[str], tools: AudioTools) -> Decoded:
    async with child_of(arguments, memory_bytes=tools.memory_bytes) as child:
        seconds, (stderr, flooded) = await asyncio.gather(
            last_position(child),
            first_bytes(child, child.stderr, most_bytes=STDERR_LIMIT_BYTES),
        )
        returncode = await child.wait()
    return Decoded(
        returncode=returncode, seconds=seconds, errors=complaints(stderr, flooded=flooded)
    )


def complaints(stderr: bytes, *, flooded: bool) -> tuple[str, ...]:
    """The serious lines of what ffmpeg has printed; `flooded`: there was more."""
    errors = serious_lines(stderr.decode("utf-8", "replace"))
    return errors or (("more complaints than were read",) if flooded else ())


def serious_lines(stderr: str) -> tuple[str, ...]:
    """The first lines that report damaged audio."""
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
    """Read `-progress pipe:1` to its end; returns the last position, in seconds.

    `on_position` gets each position.
    """
    assert child.stdout is not None
    last = 0.0
    async for line in child.stdout:
        name, _, value = line.strip().partition(b"=")
        if name == b"out_time_us" and value.isdigit():
            last = int(value) / 1_000_000
            on_position(last)
    return last
