"""Folders that are made and flushed durably, where their filesystem can flush folders.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger()

# What filesystems answer that flush files only, as old CIFS and shared folders of VirtualBox do.
_NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

# Filesystems, by their number, that cannot: the log has it once of each.
told: set[int] = set()


def make_folders(folder: Path) -> None:
    """Make the folder and those above it, durably.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with suppress(FileExistsError):  # another worker was faster
        folder.mkdir()
    flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Flush the names in the folder to disk; nothing happens where the filesystem cannot do that.

    Raises:
        OSError: the disk fails.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
        _tell(folder, os.fstat(fd).st_dev)
    finally:
        os.close(fd)


def _tell(folder: Path, device: int) -> None:
    if device in told:
        return
    told.add(device)
    log.warning(
        "folders_not_flushed",
        folder=str(folder),
        effect="after a power failure a name that was just given may be missing",
    )
