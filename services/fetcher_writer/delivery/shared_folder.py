"""Collecting from a folder that Torrentino and this machine share: a bind mount, NFS, one host."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from services.fetcher_writer.delivery.base import (
    MAX_DEPTH,
    MAX_ENTRIES,
    DeliveredFile,
    is_safe_name,
    name_parts,
    parts_below,
)
from services.fetcher_writer.delivery.dirfd import folder_below, remove_below, status_below
from services.fetcher_writer.delivery.foreign import is_foreign_folder
from shared.errors import (
    AttemptFailed,
    DependencyDown,
    DownloadsError,
    ErrorType,
    Misconfigured,
    Unavailable,
    Unexplained,
)
from shared.media.place import FILE_MODE, stage, storage_error
from shared.threads import Threads

log = structlog.get_logger(__name__)

# For listings and checks, and as many as the most files in work for what takes its time.
_CALLS, _COPIES = 8, 64
# A slow server lists 10,000 entries within it.
_CALL_S = 30.0

# What a single damaged or withheld file answers; a whole mount may answer the same.
_OF_A_FILE = {
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EBADMSG, errno.EUCLEAN),
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
}


class SharedFolder:
    """`dest_root` is the folder's path at Torrentino, `dest_mount` its path here.

    A collected file has `file_mode`, which is what the umask leaves of 0666.
    """

    # The part of its variables' names between "TORRENTINO_" and "_ROOT", "_MOUNT".
    _named = "DEST"
    # Whether files are left exactly as they are: another program uses them.
    _theirs = False

    def __init__(self, *, dest_root: str, dest_mount: Path, file_mode: int = FILE_MODE) -> None:
        self._root = dest_root
        self._mount = dest_mount
        self._file_mode = file_mode
        what = f"{dest_mount} (TORRENTINO_{self._named}_MOUNT)"
        self._calls = Threads("incoming", what, count=_CALLS, within_s=_CALL_S)
        self._copies = Threads("incoming", what, count=_COPIES)
        # The filesystem of the last files: it tells an empty folder from the mount point of an
        # unmounted disk.
        self.device: int | None = None

    async def files(self, dest_path: str) -> list[DeliveredFile]:
        """See `Delivery.files`."""
        parts = self._parts(dest_path)
        return await self._calls.soon(lambda: self._list(parts))

    async def exists(self, dest_path: str) -> bool:
        """See `Delivery.exists`."""
        parts = self._parts(dest_path)
        return await self._calls.soon(lambda: self._exists(parts))

    async def proves(self, dest_path: str) -> bool:
        """See `Delivery.proves`."""
        parts = self._parts(dest_path)
        return await self._calls.soon(lambda: self._proves(parts))

    async def identity(self) -> str:
        """See `Delivery.identity`."""
        return await self._calls.soon(self._identity)

    def another(self, dest_path: str) -> Misconfigured:
        """See `Delivery.another`."""
        here = self._mount.joinpath(*self._parts(dest_path))
        return Misconfigured(
            "incoming",
            f"Torrentino has files at {dest_path}, which is {here} here, and there is no such"
            f" folder, nor that of another download: TORRENTINO_{self._named}_MOUNT={self._mount}"
            f" is another folder than TORRENTINO_{self._named}_ROOT={self._root} of Torrentino."
            " Mount the same folder of the host in both; in docker-compose.yml, at the volumes of"
            f" fetcher-writer: - <the host's folder that Torrentino has as {self._root}>:"
            f"{self._mount}",
        )

    async def locate(
        self,
        path: str,
        size_bytes: int | None,  # noqa: ARG002
        *,
        exact: bool = False,  # noqa: ARG002
    ) -> str:
        """See `Delivery.locate`: what Torrentino placed has the name that Torrentino reports."""
        return path

    async def collect(self, dest_path: str, file: DeliveredFile, temp: Path) -> str:
        """See `Delivery.collect`. A cancelled call may write to `temp` for a while longer."""
        parts, names = self._parts(dest_path), name_parts(file)
        return await self._copies.run(self._collect, (*parts, *names), file, temp)

    async def takes_room(self, media_path: Path) -> bool:
        """See `Delivery.takes_room`: False on the same filesystem, where files are linked."""
        return await self._calls.soon(
            lambda: self._device_of(self._mount) != self._device_of(media_path)
        )

    async def remove(self, dest_path: str) -> bool:
        """See `Delivery.remove`; always True."""
        parts = self._parts(dest_path)
        await self._copies.run(self._remove, parts)
        return True

    async def check(self) -> None:
        """See `Delivery.check`."""
        await self._calls.soon(self._check_mount)

    async def close(self) -> None:
        """There is nothing to close."""

    def _parts(self, dest_path: str) -> tuple[str, ...]:
        setting = f"TORRENTINO_{self._named}_ROOT"
        return parts_below(self._root, dest_path, setting=setting)

    # --- in threads

    def _list(self, parts: tuple[str, ...]) -> list[DeliveredFile]:
        try:
            with folder_below(self._mount, parts) as fd:
                found = sorted(walk(fd), key=lambda file: file.name)
                self.device = os.fstat(fd).st_dev
                return found
        except FileNotFoundError:
            self._check_mount()
            return []
        except OSError as exc:
            raise self._error(exc, "cannot be read", parts) from exc

    def _exists(self, parts: Sequence[str]) -> bool:
        *above, name = parts
        try:
            with folder_below(self._mount, above) as fd:
                return status_below(fd, name) is not None
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise self._error(exc, "cannot be read", parts) from exc

    def _proves(self, parts: tuple[str, ...]) -> bool:
        files = self._list(parts)
        if not files:
            return False
        *above, name = self._parts_of(parts, files[0])
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with folder_below(self._mount, above) as fd:
                os.close(os.open(name, flags, dir_fd=fd))
        except OSError as exc:
            raise self._error(exc, "cannot be read", (*above, name)) from exc
        return True

    def _parts_of(self, parts: tuple[str, ...], file: DeliveredFile) -> tuple[str, ...]:
        """Where a listed file is."""
        return (*parts, *file.name.split("/"))

    def _identity(self) -> str:
        """Of the filesystem and the folder in it: a folder that is made anew is another one."""
        try:
            return f"{os.statvfs(self._mount).f_fsid:x}:{self._mount.stat().st_ino}"
        except OSError as exc:
            raise self._error(exc, "is not visible") from exc

    def _collect(self, parts: tuple[str, ...], file: DeliveredFile, temp: Path) -> str:
        *folder, name = parts
        try:
            with folder_below(self._mount, folder) as fd:
                status = status_below(fd, name)
                if status is None or not stat.S_ISREG(status.st_mode):
                    raise _changed(file, "is gone, or no regular file")
                if status.st_size != file.size_bytes:
                    raise _changed(file, f"has {status.st_size} bytes now")
                how = stage(
                    Path(name),
                    temp,
                    size_bytes=file.size_bytes,
                    folder_fd=fd,
                    theirs=self._theirs,
                    mode=self._file_mode,
                )
        except FileNotFoundError as exc:
            self._check_mount()
            raise _changed(file, "is gone") from exc
        except OSError as exc:
            raise self._error(exc, "cannot be read", parts) from exc
        except Unavailable as away:
            if away.dependency == "incoming":
                away.path = str(self._mount.joinpath(*parts))
            raise
        except AttemptFailed as failure:
            failure.evidence["path"] = str(self._mount.joinpath(*parts))[:500]
            raise
        _require_size(temp, file)
        return how

    def _remove(self, parts: tuple[str, ...]) -> None:
        *above, name = parts
        try:
            with folder_below(self._mount, above) as fd:
                remove_below(fd, name)
        except FileNotFoundError:
            self._check_mount()
        except OSError as exc:
            raise self._error(exc, "cannot be cleaned up", parts) from exc

    def _check_mount(self) -> None:
        try:
            with os.scandir(self._mount):
                device = self._mount.stat().st_dev
        except OSError as exc:
            raise self._error(exc, "is not visible") from exc
        if self.device not in (None, device):
            raise DependencyDown(
                "incoming",
                f"TORRENTINO_{self._named}_MOUNT={self._mount} is another filesystem than before:"
                " is it mounted? If the change is intended, restart the fetcher-writer",
            )

    def _device_of(self, path: Path) -> int:
        try:
            return path.stat().st_dev
        except OSError as exc:
            raise self._error(exc, "cannot be compared with MEDIA_PATH") from exc

    def _error(self, exc: OSError, what: str, parts: Sequence[str] = ()) -> DownloadsError:
        """The error for a failure to read the folder, or below it what `parts` lead to."""
        path = self._path_of(exc, parts) if parts else None
        setting = f"TORRENTINO_{self._named}_MOUNT={self._mount}"
        where = (
            f"{setting if path is None else path} {what} ({exc.strerror or exc}):"
            f" {'it' if path is None else setting} must be the folder that Torrentino sees as"
            f" TORRENTINO_{self._named}_ROOT={self._root}"
        )
        if isinstance(exc, PermissionError):
            detail = f"{where}, readable by user id {os.getuid()}"
            return Misconfigured("incoming", detail, path=path)
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            return Misconfigured("incoming", where, path=path)
        kind = DependencyDown if exc.errno in _OF_A_FILE else Unexplained
        return kind("incoming", where, path=path)

    def _path_of(self, exc: OSError, parts: Sequence[str]) -> str:
        """The path that the error is of: `parts` lead to it, or to a folder above it."""
        below = exc.filename if isinstance(exc.filename, str) else ""
        return str(self._mount.joinpath(*parts, *((below,) if below not in parts else ())))


def walk(top_fd: int) -> Iterator[DeliveredFile]:
    """The files below an open folder; see `Delivery.files`."""
    pending: list[tuple[str, ...]] = [()]
    entries_seen = 0
    while pending:
        folder = pending.pop()
        for name, status in _entries(top_fd, folder):
            entries_seen += 1
            if entries_seen > MAX_ENTRIES:
                raise AttemptFailed(
                    ErrorType.STORAGE, f"the ticket's folder has more than {MAX_ENTRIES} entries"
                )
            path = "/".join((*folder, name))
            if not (is_safe_name(name) and _is_file_or_folder(status)):
                log.warning("delivered_entry_skipped", name=ascii(path)[:500])
            elif stat.S_ISDIR(status.st_mode):
                if is_foreign_folder(name):
                    continue
                if len(folder) < MAX_DEPTH:
                    pending.append((*folder, name))
                else:
                    log.warning("delivered_folder_too_deep", name=ascii(path)[:500])
            elif status.st_size > 0:
                yield DeliveredFile(name=path, size_bytes=status.st_size)


def _entries(top_fd: int, folder: tuple[str, ...]) -> list[tuple[str, os.stat_result]]:
    """Names with their status, at most one more than allowed; none when the folder is gone."""
    found = []
    try:
        with folder_below(top_fd, folder) as fd, os.scandir(fd) as entries:
            for entry, _ in zip(entries, range(MAX_ENTRIES + 1), strict=False):
                status = status_below(fd, entry.name)
                if status is not None:
                    found.append((entry.name, status))
    except FileNotFoundError:
        pass  # removed meanwhile: the caller compares the rest with what Torrentino reports
    except OSError as exc:
        exc.filename = "/".join(folder) or None
        raise
    return found


def _is_file_or_folder(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)


def _require_size(temp: Path, file: DeliveredFile) -> None:
    try:
        staged_bytes = temp.stat().st_size
        if staged_bytes != file.size_bytes:
            temp.unlink(missing_ok=True)
            raise _changed(file, f"gave {staged_bytes} bytes or more")
    except OSError as exc:
        raise storage_error(exc, "reading the size of a staged file") from exc


def _changed(file: DeliveredFile, what: str) -> AttemptFailed:
    return AttemptFailed(
        ErrorType.STORAGE,
        f"the placed file {what}",
        {"file": file.name, "listed_bytes": file.size_bytes},
    )
