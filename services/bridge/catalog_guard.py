"""Whether a catalog may be written to: which file it is, and whether the server has it open.

SQLite finds a database's -wal and -shm by their names. If another file takes the place of
catalog.db while the server runs, or beside a -wal that a killed server left, a connection combines
the two. Even one that only reads, and may write, copies the old -wal over the new file and deletes
it when it is closed, for it finds no other user of that file. So the checks are made before such a
connection is opened.

Everything here blocks on the disk.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from shared.errors import DependencyDown, Misconfigured

# SQLite's locks on the database file (os.h): every connection in WAL mode holds a shared one.
_SHARED_FIRST = 0x40000002
_SHARED_BYTES = 510
_FLOCK = "hhqqi4x"  # struct flock of Linux, 64 bit

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_STATX_BTIME_AT = 80


@dataclass(frozen=True, kw_only=True)
class CatalogId:
    """One catalog.db, with the -shm that the server's connections share beside it.

    Each as `device:number:when it was made`, which stays when the file gets another name.
    """

    database: str
    shm: str | None


def identify(path: Path) -> CatalogId:
    """The catalog that is at `path` now.

    Raises:
        DependencyDown: there is no file, or it cannot be reached.
    """
    try:
        return CatalogId(database=_file_id(path), shm=_shm_id(path))
    except OSError as error:
        raise DependencyDown(
            "catalog_write", f"{path}: {error.strerror}: check CATALOG_DB"
        ) from error


def _shm_id(path: Path) -> str | None:
    try:
        return _file_id(beside(path, "-shm"))
    except FileNotFoundError:
        return None


def _file_id(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{_born_ns(path)}"


def beside(path: Path, ending: str) -> Path:
    """The file of SQLite with this ending beside the database."""
    return path.with_name(path.name + ending)


def _born_ns(path: Path) -> int:
    """When the file was made; 0 where the system or the filesystem does not say."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:
        return 0
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return 0
    (mask,) = struct.unpack_from("I", answer)
    seconds, nanoseconds = struct.unpack_from("qI", answer, _STATX_BTIME_AT)
    return int(seconds * 10**9 + nanoseconds) if mask & _STATX_BTIME else 0


class CatalogGuard:
    """Refuses a catalog that no server has open, or that was replaced under a running server."""

    def __init__(self, path: Path, *, server_stopped: bool) -> None:
        self._path = path
        self._server_stopped = server_stopped
        self._known: CatalogId | None = None

    def recall(self, known: CatalogId) -> None:
        """What an earlier process used last, unless this one has used a catalog already."""
        self._known = self._known or known

    def admit(self) -> CatalogId:
        """The catalog at the path, before a connection is opened.

        Raises:
            DependencyDown: no server has it open.
            Misconfigured: it was replaced under a running server, or beside the -wal of a killed
                one.
        """
        now = identify(self._path)
        known = self._known
        same_shm = known is not None and now.shm is not None and now.shm == known.shm
        if known is not None and same_shm and now.database != known.database:
            raise Misconfigured("catalog_write", _replaced(self._path))
        if now.shm is None and not self._server_stopped:
            raise DependencyDown(
                "catalog_write",
                f"{self._path} is not open in a catalog server (there is no -shm beside it):"
                " nothing is written until one runs; BRIDGE_SERVER_STOPPED says that none will",
            )
        return now

    def confirm(self, admitted: CatalogId) -> None:
        """Check the admitted catalog again, with a connection of this process open on it.

        Raises:
            DependencyDown: it was replaced meanwhile; the next try finds the new one.
            Misconfigured: no other program has this file open, though a -shm is beside it.
        """
        now = identify(self._path)
        if now.database != admitted.database:
            raise DependencyDown("catalog_write", f"{self._path} was replaced at this very moment")
        if not self._server_stopped and open_elsewhere(self._path) is False:
            raise Misconfigured("catalog_write", _not_open(self._path))
        self._known = now


def _replaced(path: Path) -> str:
    return (
        f"{path} was replaced while the catalog server ran, or beside the -wal and -shm of a killed"
        f" one: nothing is written. {_right_order(path)}"
    )


def _not_open(path: Path) -> str:
    return (
        f"a -shm is beside {path}, but no server has this file open: the server was killed, or the"
        f" file was replaced while it ran: nothing is written. Start the server if it does not"
        f" run. If the file was replaced: {_right_order(path)}"
    )


def _right_order(path: Path) -> str:
    return (
        f"Stop the server, remove {path.name}-wal and {path.name}-shm, put the file in place,"
        " and start the server"
    )


def open_elsewhere(path: Path) -> bool | None:
    """Whether another process has this very file open as a database; None where that is unknown.

    This process must have a connection open on it. Its descriptor is used: a descriptor of our own
    would end SQLite's locks when it is closed.
    """
    descriptor = _descriptor_of(path)
    if descriptor is None or sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_BYTES, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted)
    except OSError:
        return None  # a filesystem without locks
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _descriptor_of(path: Path) -> int | None:
    wanted = path.stat()
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return None
    for each in folder.iterdir():
        try:
            found = os.fstat(int(each.name))
        except OSError:
            continue  # it was closed meanwhile
        if os.path.samestat(found, wanted):
            return int(each.name)
    return None


def refuse_unwritable(path: Path) -> None:
    """Return if this process may write to the catalog and to what SQLite has beside it.

    Raises:
        Misconfigured: it may not; the text says who it is, and what the file allows.
    """
    for each in (path, beside(path, "-wal"), beside(path, "-shm")):
        try:
            found = each.stat()
        except FileNotFoundError:
            continue  # SQLite makes it like the database
        if not os.access(each, os.W_OK, effective_ids=True):
            raise Misconfigured("catalog_write", _unwritable(each, found))


def _unwritable(path: Path, found: os.stat_result) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is on a filesystem that is mounted read-only: mount its folder writable"
    us = f"uid {os.geteuid()}, gid {os.getegid()}"
    return (
        f"{path} cannot be written by this process ({us}): it belongs to uid {found.st_uid},"
        f" gid {found.st_gid} with mode {stat.S_IMODE(found.st_mode):03o}. Run the bridge as uid"
        f" {found.st_uid}, or let others write: chmod 666 {path.name} {path.name}-wal"
        f" {path.name}-shm"
    )
