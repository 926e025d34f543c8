"""How loud a file is, step by step: enough to tell whether two files are one recording."""

from __future__ import annotations

import array
import asyncio
import math
import sys
from collections.abc import Sequence
from operator import mul
from pathlib import Path

import ffmpeg

from shared.errors import DependencyDown
from shared.media.decode import STDERR_LIMIT_BYTES
from shared.media.ffmpeg_process import STOPPED, child_of, first_bytes
from shared.media.formats import DEMUXERS
from shared.media.place import translated
from shared.media.probe import protocols, source_name
from shared.media.tails import audio_start
from shared.media.tools import AudioTools
from shared.threads import MEDIA

# One channel with so few samples keeps voices and most instruments.
_RATE_HZ = 4000
_SAMPLE_BYTES = 2


async def loudness(
    path: Path, tools: AudioTools, *, step_s: float, longest_s: float
) -> Sequence[float] | None:
    """The root mean square of each `step_s` of the first `longest_s`; None: it does not decode.

    The child is killed when the call is cancelled.

    Raises:
        Misconfigured: ffmpeg does not start.
        DependencyDown: the disk is away, or ffmpeg was stopped from outside.
    """
    most_bytes = round(longest_s * _RATE_HZ) * _SAMPLE_BYTES
    with translated("reading the file to compare"):
        name = source_name(path, start=await MEDIA.run(audio_start, path))
    async with child_of(_command(name, tools, longest_s=longest_s)) as child:
        (samples, _), _ = await asyncio.gather(
            first_bytes(child, child.stdout, most_bytes=most_bytes + _RATE_HZ),
            first_bytes(child, child.stderr, most_bytes=STDERR_LIMIT_BYTES),
        )
        returncode = await child.wait()
    if returncode in STOPPED or returncode == 255:
        raise DependencyDown("ffmpeg", f"ffmpeg was stopped from outside (exit {returncode})")
    if returncode or not samples:
        return None
    return await asyncio.to_thread(_steps, samples, round(step_s * _RATE_HZ))


def _command(name: str, tools: AudioTools, *, longest_s: float) -> list[str]:
    source = ffmpeg.input(
        name, protocol_whitelist=protocols(name), format_whitelist=DEMUXERS, threads=1
    )
    output = source.output(
        "pipe:1", format="s16le", map="0:a:0", ac=1, ar=_RATE_HZ, t=longest_s
    ).global_args("-nostdin", "-hide_banner", "-v", "error")
    compiled: list[str] = ffmpeg.compile(output, cmd=tools.ffmpeg)
    return compiled


def _steps(samples: bytes, step: int) -> list[float]:
    values = array.array("h", samples[: len(samples) // _SAMPLE_BYTES * _SAMPLE_BYTES])
    if sys.byteorder == "big":
        values.byteswap()
    steps = (values[at : at + step] for at in range(0, len(values) - step + 1, step))
    return [math.sqrt(sum(map(mul, each, each)) / step) for each in steps]
