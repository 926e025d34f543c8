"""Whether files can be placed in a media root: the real thing is done once, with a small file.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from shared.errors import DependencyDown, DownloadsError, Misconfigured
from shared.media.folders import flush_folder, make_folders
from shared.media.paths import AUDIO, INCOMING
from shared.media.place import flush_file, link_or_rename, storage_error

# Its name below `audio/`: always the same, so that the next check removes what a crash has left.
CHECKED = ".write-check"
_CONTENT = b"written by the fetcher-writer to check that files can be placed here\n"
# Other workers check at the same time, under the same name.
_MOST_TURNS = 10

_RIGHTS = {errno.EACCES, errno.EPERM}
_REFUSED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def check_writing(media_path: Path) -> None:
    """Write a file to `.incoming`, give it a name in `audio/` as a placed file gets it, remove it.

    No other file is touched. What a crash leaves is removed: in `.incoming` by the reaper, in
    `audio/` by the next check. Blocks.

    Raises:
        DependencyDown: the disk cannot be written to now.
        Misconfigured: files can never be placed here; the text says what to change.
    """
    # A name of a temporary file, which the reaper knows to belong to no claim.
    temp = media_path / INCOMING / f"check-{uuid.uuid4().hex}.0.part"
    final = media_path / AUDIO / CHECKED
    try:
        _write(temp)
        make_folders(final.parent)
        _give_name(temp, final)
        flush_folder(final.parent)
        flush_folder(temp.parent)
    except OSError as error:
        raise _explained(error, media_path) from error
    finally:
        for left in (temp, final):
            with suppress(OSError):
                _remove_own(left)


def _write(temp: Path) -> None:
    temp.parent.mkdir(exist_ok=True)
    temp.write_bytes(_CONTENT)
    flush_file(temp)


def _give_name(temp: Path, final: Path) -> None:
    for _ in range(_MOST_TURNS):
        if link_or_rename(temp, final):
            return
        if not _remove_own(final):
            raise FileExistsError(errno.EEXIST, "a file that is not ours has the name", str(final))
    raise FileExistsError(errno.EEXIST, "the name is taken again and again", str(final))


def _remove_own(path: Path) -> bool:
    """Remove a file of this check, if there is one; False: it is another one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # An earlier check may have ended before it had written all.
        own = _CONTENT.startswith(os.read(fd, len(_CONTENT) + 1))
    finally:
        os.close(fd)
    if own:
        path.unlink(missing_ok=True)
    return own


def _explained(error: OSError, media_path: Path) -> DownloadsError:
    """The error for a failed check; the disk is at fault, or how it is mounted."""
    audio, incoming = media_path / AUDIO, media_path / INCOMING
    if error.errno == errno.EXDEV:
        return Misconfigured(
            "media_write",
            f"{audio} and {incoming} are two mounts, so no file can be placed in one step: mount"
            f" one folder or volume at {media_path} (MEDIA_PATH), with both in it, and none below",
        )
    if error.errno in _REFUSED:
        return Misconfigured(
            "media_write",
            f"the filesystem of {media_path} (MEDIA_PATH) refuses to place a file"
            f" ({error.strerror}): use one that can link or rename files",
        )
    if error.errno in _RIGHTS:
        return Misconfigured(
            "media_write",
            f"user id {os.geteuid()} may not write to {error.filename or media_path}"
            f" ({error.strerror}): give this user the right to write to {incoming} and {audio}",
        )
    known = storage_error(error, "writing to the media root", dependency="media_write")
    if isinstance(known, DependencyDown):
        return known
    return DependencyDown("media_write", str(known))
