"""Converting a four-minute FLAC to each format: the service's code against bare ffmpeg."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

from shared.media.capabilities import capabilities
from shared.media.convert import arguments, convert
from shared.media.encoders import Plan, Target, plan
from shared.media.formats import AudioFormat
from shared.media.tools import AudioTools, find_tools
from shared.media.verify import verify
from tests.support.conversion import run as ffmpeg
from tests.support.world import World

_SECONDS = 240.0
_ROUNDS = 5
# Slow waves in noise: as much work for a codec as music.
_MUSIC = (
    f"anoisesrc=color=pink:r=44100:d={_SECONDS}:a=0.4,tremolo=f=3:d=0.8,"
    "aformat=channel_layouts=stereo"
)
# FLAC is not converted to FLAC, so that row starts from ALAC.
_SOURCES = {
    "flac": ("-c:a", "flac", "-sample_fmt", "s16", "-f", "flac"),
    "alac": ("-c:a", "alac", "-sample_fmt", "s16p", "-f", "ipod"),
}


async def run(world: World) -> dict[str, Any]:
    """The medians of five in seconds: one after another, and two at once."""
    tools = find_tools()
    has = await capabilities(tools)
    sources = {name: world.folder / f"music.{name}" for name in _SOURCES}
    for name, options in _SOURCES.items():
        ffmpeg("-f", "lavfi", "-i", _MUSIC, *options, str(sources[name]))
    result: dict[str, Any] = {"source": f"{_SECONDS:.0f} s, 44.1 kHz, stereo"}
    for format_ in get_args(AudioFormat):
        source = sources["alac" if format_ == "flac" else "flac"]
        facts = await verify(source, expected_ms=None, tolerance_s=6, tools=tools)
        made = plan(facts, Target(format=format_), has)
        assert made is not None
        result[format_] = await _compared(source, world.folder, made, tools)
    return result


async def _compared(source: Path, folder: Path, made: Plan, tools: AudioTools) -> dict[str, Any]:
    targets = [folder / f"{n}.{made.ext}" for n in range(2)]

    async def ours(target: Path) -> None:
        await convert(source, target, made, tools, duration_s=_SECONDS, timeout_s=300)

    async def bare(target: Path) -> None:
        command = await arguments(source, target, made, tools)
        child = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        assert await child.wait() == 0

    # In turns, so that a busy moment of the machine affects both.
    times: dict[str, list[float]] = {"ours_s": [], "bare_s": [], "ours_two_at_once_s": []}
    for _ in range(_ROUNDS):
        times["ours_s"].append(await _timed(ours, targets[:1]))
        times["bare_s"].append(await _timed(bare, targets[:1]))
        times["ours_two_at_once_s"].append(await _timed(ours, targets))
    row: dict[str, Any] = {name: round(statistics.median(t), 2) for name, t in times.items()}
    return {"encoder": made.encoder, "kbit/s": made.bitrate_kbps, **row}


async def _timed(work: Callable[[Path], Awaitable[None]], targets: list[Path]) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(work(target) for target in targets))
    return time.perf_counter() - began
