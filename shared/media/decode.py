"""The full decode of a file by ffmpeg, in a child process that ends with the call."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ffmpeg

from shared.errors import DependencyDown
from shared.media.complaints import damage_lines
from shared.media.extent import Extent
from shared.media.ffmpeg_process import KILLED, KILLED_TWICE, STOPPED, child_of, first_bytes
from shared.media.formats import DEMUXERS
from shared.media.probe import ProbeResult, protocols, source_name
from shared.media.tools import AudioTools

STDERR_LIMIT_BYTES = 64 * 1024
FLOODED = "more complaints than were read"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How a decode ended. After a non-zero exit, `seconds` is of the last progress report."""

    returncode: int
    seconds: float
    errors: tuple[str, ...]


def command(
    path: Path,
    tools: AudioTools,
    *,
    longest_s: float,
    probed: ProbeResult | None = None,
) -> list[str]:
    """The arguments of a decode that counts what comes out; see `decode`."""
    # Strict for the decoder only (`err_detect:a`): in the demuxer, `explode` would also reject good
    # audio for a damaged cover. `crccheck` finds a single wrong bit in a FLAC. With `explode`,
    # damaged frames are left out and not concealed. Not `-xerror`: it also ends for what only a
    # reader of the container says.
    extent = Extent() if probed is None else probed.extent
    name = source_name(path, start=extent.start, end=extent.end)
    source = ffmpeg.input(
        name,
        **{
            "protocol_whitelist": protocols(name),
            "format_whitelist": DEMUXERS,
            "err_detect:a": "crccheck+explode",
            # Several files are decoded at once; more threads for one only cost memory.
            "threads": 1,
        },
    )
    # Count samples: timestamps jump over missing audio as if it were there. Without a timestamp
    # (NAN) the encoder counts; a number of the filter's would begin again where channels or rate
    # change, because ffmpeg then makes its filters anew.
    rate = "" if probed is None else f"aformat=sample_rates={probed.sample_rate_hz},"
    output = source.output(
        "-",
        format="null",
        map="0:a:0",
        af=f"{rate}asetpts=NAN",
        t=longest_s,
        progress="pipe:1",
    ).global_args("-nostdin", "-hide_banner", "-v", "error")
    compiled: list[str] = ffmpeg.compile(output, cmd=tools.ffmpeg)
    return compiled


async def decode(
    path: Path,
    tools: AudioTools,
    *,
    longest_s: float,
    probed: ProbeResult | None = None,
) -> Decoded:
    """Decode the first audio stream of `path`, up to `longest_s`, and throw the samples away.

    With `probed` only its extent is read, and samples of another rate are counted at its rate. The
    child is killed when the call is cancelled, so a deadline around the call is enough. A decode
    that the kernel kills is tried once more.

    Raises:
        Misconfigured: ffmpeg does not start.
        DependencyDown: ffmpeg was stopped from outside; the file is not at fault.
    """
    arguments = command(path, tools, longest_s=longest_s, probed=probed)
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
    errors = damage_lines(stderr.decode("utf-8", "replace"), readers=DEMUXERS)
    return Decoded(
        returncode=returncode,
        seconds=seconds,
        errors=errors or ((FLOODED,) if flooded else ()),
    )


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
