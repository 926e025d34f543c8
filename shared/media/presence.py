"""Where the catalog says that a track's file lies: the only containment check there is.

The catalog server serves whatever `audio_uri` leads to: absolute paths, `..` and links out of its
media root as well. Here only regular files inside the media root count. Everything blocks on the
disk: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from shared.media.paths import AUDIO, INCOMING

# What a single damaged or withheld file or folder answers; a whole disk may answer the same.
_OF_A_FILE = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EBADMSG, errno.EUCLEAN}

# What no file can be: the path goes nowhere.
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A regular file inside the media root; `path` has no link in it."""

    uri: str
    path: Path
    size_bytes: int
    modified_ns: int
    inode: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What may not be used, and why."""

    uri: str
    why: str


def named_file(media_path: Path, uri: str | None) -> NamedFile | Outside | None:
    """What `uri` leads to, relative to the media root; None: there is no file.

    Raises:
        OSError: the disk cannot be read.
    """
    if not uri:
        return None
    why = _no_path(uri)
    if why is None:
        try:
            return _contained(media_path, uri)
        except OSError as error:
            if error.errno in _NOWHERE:
                return None
            raise
    return Outside(uri=uri, why=why)


def is_of_one_file(error: OSError, media_path: Path) -> bool:
    """Whether the error is of the one file: the media root itself can be read at this moment."""
    if error.errno not in _OF_A_FILE:
        return False
    try:
        for folder in (media_path, media_path / INCOMING, media_path / AUDIO):
            if folder == media_path or folder.exists():
                with os.scandir(folder) as entries:
                    next(entries, None)
    except OSError:
        return False
    return True


def _no_path(uri: str) -> str | None:
    """Why the text is no path below a folder, whatever there is on the disk."""
    if "\0" in uri:
        return "it is not a text, or has a NUL character"
    if uri.startswith("/"):
        return "it is an absolute path: the catalog needs one that is relative to the media root"
    if ".." in uri.split("/"):
        return "it has the component `..`"
    return None


def _contained(media_path: Path, uri: str) -> NamedFile | Outside:
    # As a text: a Path would drop the slash at the end, which is none of a file.
    named = os.path.join(media_path, uri)  # noqa: PTH118
    found = os.stat(named)  # noqa: PTH116
    root, real = (os.path.realpath(each) for each in (media_path, named))
    if not real.startswith(f"{root}{os.sep}") and real != root:
        return Outside(uri=uri, why="a link in it leads out of the media root")
    if INCOMING in (_first(real[len(root) + 1 :]), _first(os.path.normpath(uri))):
        return Outside(uri=uri, why=f"it leads into {INCOMING}, which has temporary files")
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        return Outside(uri=uri, why=f"it is {kind}")
    return NamedFile(
        uri=uri,
        path=Path(real),
        size_bytes=found.st_size,
        modified_ns=found.st_mtime_ns,
        inode=(found.st_dev, found.st_ino),
    )


def _first(path: str) -> str:
    return path.partition(os.sep)[0]
