"""Real filesystems that are full, small or seen twice, where this machine lets us mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(folder: Path, *, kib: int) -> Iterator[None]:
    """A small filesystem of its own at `folder`."""
    mounted("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    """The same filesystem under a second name."""
    target.mkdir(exist_ok=True)
    mounted("mount", "--bind", str(source), str(target))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=False, capture_output=True)


def mounted(*command: str) -> None:
    """Run `mount` or `umount`; the test is skipped where that is not allowed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no user may mount on this machine: {done.stderr.strip()}")
