"""How much memory ffmpeg may use: the container's limit, shared by those that run at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.media.memory import LEAST_BYTES, MIB, MOST_BYTES, Share, available, share


@pytest.mark.parametrize(
    ("wanted", "available_mib", "expected"),
    [
        (4, 16_384, Share(at_once=4, memory_bytes=MOST_BYTES)),
        (4, 1_024, Share(at_once=4, memory_bytes=192 * MIB)),
        # Too little for four: fewer run, each with what a good file needs.
        (4, 512, Share(at_once=2, memory_bytes=LEAST_BYTES)),
        (4, 64, Share(at_once=1, memory_bytes=LEAST_BYTES)),
    ],
)
def test_share(wanted: int, available_mib: int, expected: Share) -> None:
    """Together they stay within what there is beside this process."""
    assert share(wanted, available_bytes=available_mib * MIB) == expected


def group(folder: Path, name: str, limit: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{limit}\n")


@pytest.mark.parametrize(
    ("line", "place", "name"),
    [
        ("0::/system/worker", "system/worker", "memory.max"),
        ("0::/", "", "memory.max"),
        ("4:memory:/docker/abc", "memory/docker/abc", "memory.limit_in_bytes"),
        # A container of v1 sees its own group at the root, and is told the host's path.
        ("4:memory:/docker/abc", "memory", "memory.limit_in_bytes"),
        ("7:cpu,memory:/x", "memory/x", "memory.limit_in_bytes"),
    ],
)
def test_limit_of_a_control_group(line: str, place: str, name: str, tmp_path: Path) -> None:
    """Both versions, wherever the group lies below the root."""
    groups, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    groups.write_text(f"9:name=systemd:/\n{line}\n")
    group(mounted / place, name, "100000000")
    assert available(groups=groups, mounted=mounted) == 100_000_000


def test_the_least_limit_above_counts(tmp_path: Path) -> None:
    """A limit of a group holds for all groups below."""
    groups, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    groups.write_text("0::/a/b\n")
    group(mounted / "a" / "b", "memory.max", "max")
    group(mounted / "a", "memory.max", "50000000")
    group(mounted, "memory.max", "90000000")
    assert available(groups=groups, mounted=mounted) == 50_000_000


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_limit_it_is_the_machines_memory(limit: str, tmp_path: Path) -> None:
    """v1 writes an enormous number for no limit."""
    groups, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    groups.write_text("0::/\n4:memory:/\n")
    group(mounted, "memory.max", limit)
    group(mounted / "memory", "memory.limit_in_bytes", limit)
    nowhere = tmp_path / "nowhere"
    machine = available(groups=nowhere, mounted=nowhere)
    assert available(groups=groups, mounted=mounted) == machine
    assert 64 * MIB < machine < 2**60
