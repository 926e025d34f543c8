"""The conversion of a verified file, as `shared.media.encoders.plan` decides it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from shared.media.encoders import Plan
from shared.media.ffmpeg_write import SPARE_BYTES, command, write_audio
from shared.media.tools import AudioTools


class Slots(asyncio.Semaphore):
    """The conversions that may run at once: one for each core that this process may use.

    A process has one. Take a slot around `convert`, so that no deadline runs while it waits:
    `async with slots: await convert(…)`.
    """

    def __init__(self, count: int | None = None) -> None:
        super().__init__(count or _cores())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def convert(
    source: Path,
    target: Path,
    plan: Plan,
    tools: AudioTools,
    *,
    duration_s: float,
    on_progress: Callable[[float], None] | None = None,
    timeout_s: float,
) -> None:
    """Write `source`, which `verify` has passed with `duration_s`, to `target` as planned.

    The first audio stream and the text tags are kept, pictures and all other streams are not.
    `target` is whole and on disk when this returns, and not there when it raises or is cancelled.
    `on_progress` gets 0 to 100, at most twice a second. An hour of music takes a minute or two.

    Raises:
        CorruptAudio: the source gives less than `duration_s`, or ffmpeg rejects it.
        AttemptFailed: it took longer than `timeout_s`, or ffmpeg rejects the plan.
        DependencyDown: the disk is full or away, or ffmpeg was stopped from outside.
        Misconfigured: ffmpeg does not start.
    """
    await write_audio(
        await arguments(source, target, plan, tools),
        target,
        tools,
        expected_s=duration_s,
        most_bytes=_most_bytes(plan, duration_s),
        timeout_s=timeout_s,
        on_progress=on_progress,
    )


async def arguments(source: Path, target: Path, plan: Plan, tools: AudioTools) -> list[str]:
    """The command of this conversion."""
    options: dict[str, object] = {"c:a": plan.encoder, **plan.options, "f": plan.muxer}
    if plan.filters is not None:
        options["af"] = plan.filters
    options |= {"map_metadata": plan.tags_from}
    return await command(source, target, tools, writing=options)


def _most_bytes(plan: Plan, duration_s: float) -> int:
    """An upper bound: the samples uncompressed, or twice the bit rate that is aimed at."""
    if plan.bitrate_kbps is None:
        bytes_per_s = plan.sample_rate_hz * plan.channels * 4
    else:
        bytes_per_s = plan.bitrate_kbps * 250
    return int(bytes_per_s * duration_s) + SPARE_BYTES
