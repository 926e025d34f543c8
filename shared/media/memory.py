"""How much memory a program that reads a stranger's file may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1024**2
# What every good file needs and more: measured on both supported releases, 90 MB with a cover of
# 26 MB at 192 kHz in eight channels, else 40 MB.
LEAST_BYTES = 128 * MIB
# Where more is there, still more than any music needs.
MOST_BYTES = 512 * MIB
# For this process: 100 MB for one service, 180 MB for all of them.
_OURS_BYTES = 256 * MIB


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many programs may run at once, and how much memory each of them may use."""

    at_once: int
    memory_bytes: int


def share(wanted_at_once: int, *, available_bytes: int | None = None) -> Share:
    """The share of each of the programs in the memory that this process may use.

    By default that of the container, or else of the machine. Where it is too little for
    `wanted_at_once` programs with `LEAST_BYTES` each, fewer run at once.
    """
    if available_bytes is None:
        available_bytes = available()
    for_them = available_bytes - _OURS_BYTES
    at_once = max(1, min(wanted_at_once, for_them // LEAST_BYTES))
    return Share(
        at_once=at_once, memory_bytes=max(LEAST_BYTES, min(MOST_BYTES, for_them // at_once))
    )


def available(
    *, groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> int:
    """The memory that this process may use: the least limit of its control groups, of v2 or v1.

    Without such a limit it is the machine's memory.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []  # not Linux, or no /proc
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(mounted, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(mounted / "memory", path, "memory.limit_in_bytes")
    return min(limits)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """The limits of a control group and those above it; in a container the root is its own."""
    folder = root / path.strip("/")
    found = []
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        try:
            text = (place / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is none
            found.append(int(text))
    return found
