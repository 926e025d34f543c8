"""Staging a file beside the media root and giving it its final name, in one step.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import structlog

from shared.crashpoints import reached
from shared.errors import (
    AttemptFailed,
    Dependency,
    DependencyDown,
    DownloadsError,
    ErrorType,
    Unexplained,
)
from shared.media.folders import flush_folder, make_folders

log = structlog.get_logger()

Staged = Literal["hardlink", "reflink", "copy"]

FILE_MODE = 0o644  # what the default UMASK makes of a file
_BLOCK_BYTES = 1024 * 1024
_FICLONE = 0x40049409  # linux/fs.h
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space or raise it",
    errno.EROFS: "the filesystem is read-only: mount it writable",
    errno.EACCES: "permission denied: give this user the right to read and write there",
    errno.EPERM: "not permitted: give this user the right to read and write there",
    errno.EIO: "the disk reports an I/O error: check it (dmesg)",
    errno.EBADMSG: "the filesystem reports damage: check it",
    errno.EUCLEAN: "the filesystem reports damage: check it",
    errno.ESTALE: "the network mount is stale: mount it again",
    errno.ENOTCONN: "the mount is not connected: mount it again",
    errno.EHOSTDOWN: "the file server is down",
    errno.ENODEV: "the device is gone: mount it again",
    errno.ENXIO: "the device is gone: mount it again",
}
# A whole mount answers these. Where it works again at the next call, no file was at fault.
_OF_THE_MOUNT = {errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV}
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What the name or the kind of a file leads to: the disk works.
_OF_THE_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EEXIST,
    errno.EFBIG,
}
# What filesystems answer that have no hard links, or none left for this file.
_NO_LINK = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EMLINK,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EXDEV,
}


def storage_error(exc: OSError, what: str, *, dependency: Dependency = "media") -> DownloadsError:
    """Our error for an error of the disk.

    `AttemptFailed` where the file's name or kind is at fault; `DependencyDown` where an operator
    has to act; `Unexplained` for every other number, such as that of too many open files.
    """
    path = str(exc.filename) if exc.filename else None
    where = f" ({path})" if path else ""
    if exc.errno in _OF_THE_FILE:
        evidence = {} if path is None else {"path": path}
        return AttemptFailed(ErrorType.STORAGE, f"{what}{where}: {exc.strerror or exc}", evidence)
    advice = _ADVICE.get(exc.errno or 0)
    if advice is None:
        return Unexplained(dependency, f"{what}{where}: {exc.strerror or exc}", path=path)
    if dependency in ("media", "media_write") and exc.errno in _FULL:
        dependency = "space"
    kind = Unexplained if exc.errno in _OF_THE_MOUNT else DependencyDown
    return kind(dependency, f"{what}{where}: {advice}", path=path)


@contextmanager
def translated(what: str, dependency: Dependency = "media") -> Iterator[None]:
    """Turn each OSError of the block into our error for it."""
    try:
        yield
    except OSError as exc:
        raise storage_error(exc, what, dependency=dependency) from exc


def stage(
    source: Path,
    temp: Path,
    *,
    size_bytes: int | None = None,
    folder_fd: int | None = None,
    theirs: bool = False,
    mode: int = FILE_MODE,
) -> Staged:
    """Make `temp` a durable link, clone or copy of `source`, with the owner and mode of our files.

    `source` is relative to the open folder `folder_fd`, if that is given. An old `temp` is
    replaced. After a failure no `temp` is left. Links, and everything else that is not a regular
    file, are refused. Of a file that grows, one byte more than `size_bytes` is copied, so that its
    size shows it.

    `mode` is what the umask leaves of 0666: new files have it already, and a linked file is given
    it. A file that is `theirs` is not changed, so its mode stays too: it is linked only if the same
    users may read it as with `mode`, and if not all users may write to it. Blocks.

    Raises:
        AttemptFailed: `source` is gone or refused.
        DependencyDown: one of the two disks cannot be used now.
    """
    with translated("reading a finished download", "incoming"):
        source_fd = _open_regular(source, folder_fd)
    try:
        with translated("staging a finished download"):
            # Not the parents: a missing media root means that its disk is not mounted.
            temp.parent.mkdir(exist_ok=True)
            temp.unlink(missing_ok=True)
            try:
                if _hard_link(source, source_fd, temp, folder_fd, mode=mode, theirs=theirs):
                    return "hardlink"
                return _clone_or_copy(source_fd, temp, size_bytes)
            except BaseException:
                discard(temp)
                raise
    finally:
        os.close(source_fd)


def _open_regular(source: Path, folder_fd: int | None) -> int:
    # O_NONBLOCK: opening a named pipe would wait for a writer for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(source, flags, dir_fd=folder_fd)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_regular(source) from exc
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _not_regular(source)
    return fd


def _not_regular(source: Path) -> AttemptFailed:
    return AttemptFailed(
        ErrorType.STORAGE, f"{source} is a link or no regular file: refused", {"path": str(source)}
    )


def _hard_link(
    source: Path, source_fd: int, temp: Path, folder_fd: int | None, *, mode: int, theirs: bool
) -> bool:
    found = os.fstat(source_fd)
    if found.st_nlink > 1:
        return False  # a program could write to the served file by its other name
    if not mode & 0o004 and not _is_as_ours(found, temp.parent):
        return False  # the rights of owner and group would be those of another user
    if theirs and not _can_be_served(found.st_mode, mode):
        return False  # its mode does not fit, and may not be changed
    try:
        os.link(source, temp, src_dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return False  # a copy shows whether the disk can be used
    reached("media.linked")
    ours, linked = temp.lstat(), os.fstat(source_fd)
    # The name may have come to mean another file between the open and the link.
    same = (ours.st_dev, ours.st_ino) == (linked.st_dev, linked.st_ino)
    if not same or not (theirs or _set_mode(source_fd, mode)):
        temp.unlink()
        return False
    os.fsync(source_fd)
    return True


def _is_as_ours(found: os.stat_result, folder: Path) -> bool:
    """Whether it has the owner and the group that new files in this folder have."""
    return (found.st_uid, found.st_gid) == (os.geteuid(), folder.stat().st_gid)


def _can_be_served(found: int, mode: int) -> bool:
    """Whether the mode `found` lets the same users read as `mode`, and not all users write."""
    return found & 0o446 == mode & 0o444


def _set_mode(fd: int, mode: int) -> bool:
    found = stat.S_IMODE(os.fstat(fd).st_mode)
    if found == mode:
        return True
    try:
        os.fchmod(fd, mode)
    except OSError:
        return _can_be_served(found, mode)  # another user's file
    return True


def _clone_or_copy(source_fd: int, temp: Path, size_bytes: int | None) -> Staged:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    temp_fd = os.open(temp, flags, 0o666)
    try:
        reached("media.created")
        how: Staged = "reflink" if _reflink(source_fd, temp_fd) else "copy"
        if how == "copy":
            _copy(source_fd, temp_fd, size_bytes)
        reached("media.copied")
        os.fsync(temp_fd)
    finally:
        os.close(temp_fd)
    return how


def _reflink(source_fd: int, temp_fd: int) -> bool:
    try:
        fcntl.ioctl(temp_fd, _FICLONE, source_fd)
    except OSError:
        return False
    return True


def _copy(source_fd: int, temp_fd: int, size_bytes: int | None) -> None:
    left = float("inf") if size_bytes is None else size_bytes + 1
    while block := _read(source_fd, int(min(left, _BLOCK_BYTES))):
        _write_all(temp_fd, block)
        left -= len(block)
        reached("media.copying")


def _read(source_fd: int, most_bytes: int) -> bytes:
    with translated("reading a finished download", "incoming"):
        return os.read(source_fd, most_bytes)


def _write_all(fd: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(fd, rest) :]


def written(temp: Path) -> tuple[int, int]:
    """Size and modification time: they change when the file is written to. Blocks.

    Raises:
        DependencyDown, AttemptFailed: they cannot be read.
    """
    with translated("reading the status of a staged file"):
        found = temp.stat()
    return found.st_size, found.st_mtime_ns


def discard(temp: Path) -> None:
    """Remove the file, if the disk allows it: the reaper removes what is left. Blocks."""
    try:
        temp.unlink(missing_ok=True)
    except OSError as error:
        log.warning("temporary_file_left", file=temp.name, error=str(error))


def publish(temp: Path, final: Path, *, replace: bool = False) -> bool:
    """Give the finished `temp` its final name, durably and in one step.

    Returns False, and leaves both files, when `final` exists and `replace` is false. A call that
    was interrupted may be repeated: if `final` is `temp` already, the call completes it. Blocks.

    Raises:
        AttemptFailed: `temp` is gone.
        DependencyDown: the disk cannot be used now.
    """
    with translated("placing a file in the media root"):
        flush_file(temp)
        make_folders(final.parent)
        reached("media.folders")
        if replace:
            temp.replace(final)
        elif not link_or_rename(temp, final):
            return False
        reached("media.named")
        # After a link both names exist, and a rename to a link of the same file does nothing.
        temp.unlink(missing_ok=True)
        reached("media.unlinked")
        flush_folder(final.parent)
    return True


def link_or_rename(temp: Path, final: Path) -> bool:
    """Give `temp` the name `final`, unless another file has it: then False.

    `temp` remains after a link. Raises OSError. Blocks.
    """
    try:
        os.link(temp, final, follow_symlinks=False)
    except FileExistsError:
        return _same_file(temp, final)
    except OSError as exc:
        if exc.errno not in _NO_LINK:
            raise
        return _rename_without_replacing(temp, final)
    return True


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except FileNotFoundError:
        return False


def _rename_without_replacing(temp: Path, final: Path) -> bool:
    """For filesystems without hard links; the last resort has a gap between check and rename."""
    failure = renameat2(temp, final)
    if failure == 0:
        return True
    if failure == errno.EEXIST:
        return _same_file(temp, final)
    if failure not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
        raise OSError(failure, os.strerror(failure), str(final))
    if os.path.lexists(final):
        return False
    temp.rename(final)
    return True


def renameat2(temp: Path, final: Path) -> int:
    """Rename unless the name exists; the errno, 0 if it was done."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return errno.ENOSYS
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(temp), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE
    )
    return ctypes.get_errno() if done else 0


def flush_file(path: Path) -> None:
    """Flush the file to disk. Raises OSError. Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def room_on(path: Path) -> tuple[int, int]:
    """Bytes on the filesystem of `path`: free for an ordinary user, and in all. Blocks.

    Raises:
        DependencyDown, AttemptFailed: they cannot be read.
    """
    with translated("reading the free space"):
        usage = shutil.disk_usage(path)
        return usage.free, usage.total


def free_mb(path: Path) -> int:
    """MiB on the filesystem of `path` that are free for an ordinary user. Blocks.

    Raises:
        DependencyDown, AttemptFailed: they cannot be read.
    """
    return room_on(path)[0] // (1024 * 1024)
