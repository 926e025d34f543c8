"""Access below a folder that other programs write to, without ever leaving it.

Each name is opened relative to the open folder above it, and never through a link. A name that is
replaced by a link between the check and the opening leads nowhere.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shared.errors import AttemptFailed, ErrorType

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def folder_below(root: Path | int, parts: Sequence[str]) -> Iterator[int]:
    """The folder `root/part/part/…`, open for the block.

    `root` is an open folder, or the path from a setting, which may itself be a link.

    Raises:
        FileNotFoundError: it is not there.
        AttemptFailed: STORAGE, a part is a link, or is not a folder.
        OSError: it cannot be opened.
    """
    fd = os.dup(root) if isinstance(root, int) else os.open(root, _FOLDER)
    try:
        for name in parts:
            deeper = _open_folder(name, fd)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


def _open_folder(name: str, above_fd: int) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above_fd)
    except OSError as exc:
        found = status_below(above_fd, name)
        if found is None:
            raise FileNotFoundError(exc.errno, "gone", name) from exc
        if stat.S_ISLNK(found.st_mode):
            raise _refused("there is a link in the ticket's path", name) from exc
        if not stat.S_ISDIR(found.st_mode):
            raise _refused("what should be a folder is not a folder", name) from exc
        raise


def _refused(message: str, name: str) -> AttemptFailed:
    return AttemptFailed(ErrorType.STORAGE, message, {"name": ascii(name)[:500]})


def status_below(folder_fd: int, name: str) -> os.stat_result | None:
    """The status of the entry itself, never of a link's target; None when it is not there."""
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove_below(folder_fd: int, name: str) -> None:
    """Remove the entry with all in it, if it is there; of a link, the link alone.

    Raises:
        OSError: it cannot be removed.
    """
    found = status_below(folder_fd, name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder_fd)
        return
    # Another worker may remove the same files at this moment: that is no failure.
    for _ in range(5):
        try:
            shutil.rmtree(name, dir_fd=folder_fd)
        except FileNotFoundError:
            if status_below(folder_fd, name) is not None:
                continue
        return
