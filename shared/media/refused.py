"""Files under a track's name that were not whole: moved aside, and kept for a while.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from shared.media.paths import INCOMING
from shared.media.place import translated

log = structlog.get_logger()

# Long enough for an operator to inspect one.
KEPT_S = 30 * 86_400.0
KEPT_BYTES = 1024**3


def _folder(media_path: Path) -> Path:
    return media_path / INCOMING / "refused"


def move_aside(media_path: Path, files: Sequence[Path]) -> None:
    """Move these files of the media root aside, so that their names are free.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    folder = _folder(media_path)
    with translated("moving a broken file aside"):
        folder.mkdir(exist_ok=True)
        for file in files:
            try:
                file.rename(folder / f"{time.time_ns()}-{file.name}")
            except FileNotFoundError:
                log.info("refused_file_is_gone", file=str(file))


def prune_refused(
    media_path: Path,
    *,
    older_than_s: float = KEPT_S,
    keep_bytes: int = KEPT_BYTES,
    now_s: float | None = None,
) -> int:
    """Remove files that were moved aside long ago, and the oldest beyond `keep_bytes`.

    Returns how many files were removed.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    before_s = (time.time() if now_s is None else now_s) - older_than_s
    total_bytes = removed = 0
    with translated("removing files that were moved aside"):
        for moved_s, size_bytes, path in sorted(_found(_folder(media_path)), reverse=True):
            total_bytes += size_bytes
            if moved_s < before_s or total_bytes > keep_bytes:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def _found(folder: Path) -> list[tuple[float, int, Path]]:
    """For each file: when it was moved here (its change time), its size, its path."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_ctime, status.st_size, Path(entry.path)))
    except FileNotFoundError:
        pass  # no file was refused yet, or another reaper removes this one
    return found
