"""Temporary files that no claim owns any more.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path

from shared.crashpoints import reached
from shared.media.paths import INCOMING
from shared.media.place import translated


def sweep_temp(
    media_path: Path,
    *,
    older_than_s: float,
    keep: Callable[[str], bool],
    now_s: float | None = None,
) -> list[str]:
    """Remove `*.part` files that were not written for `older_than_s`, unless `keep` says to keep.

    `keep` gets the file's name, and says whether a claim still owns it. `now_s` is the
    filesystem's time in Unix seconds, by default the machine's. Returns the removed names. Blocks.

    Raises:
        DependencyDown: the disk cannot be used now.
    """
    before_s = (time.time() if now_s is None else now_s) - older_than_s
    removed: list[str] = []
    with translated("sweeping temporary files"):
        for path in sorted((media_path / INCOMING).glob("*.part")):
            if _untouched_since(path, before_s) and not keep(path.name):
                path.unlink(missing_ok=True)
                reached("reaper.temp_removed")
                removed.append(path.name)
    return removed


def _untouched_since(path: Path, moment_s: float) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    # A hard link has the old modification time of its source; its change time is new.
    return stat.S_ISREG(found.st_mode) and max(found.st_mtime, found.st_ctime) < moment_s
