"""Collecting from a folder that Torrentino and we both see: a bind mount, NFS, one host."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import structlog

from services.fetcher_writer.delivery import (
    MAX_DEPTH,
    MAX_ENTRIES,
    DeliveredFile,
    is_safe_name,
    name_parts,
    parts_below,
)
from shared.errors import (
    AttemptFailed,
    DependencyDown,
    DownloadsError,
    ErrorType,
    Misconfigured,
)
from shared.media.place import remove_tree, stage, storage_error

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A dead NFS server blocks a call for minutes; whoever waits must hear of it before.
_LOOK_TIMEOUT_S = 30.0


class SharedFolder:
    """`dest_root` as Torrentino sees it is `dest_mount` as we do."""

    def __init__(self, *, dest_root: str, dest_mount: Path) -> None:
        self._root = dest_root
        self._mount = dest_mount

    async def files(self, dest_path: str) -> list[DeliveredFile]:
        """See `Delivery.files`."""
        parts = parts_below(self._root, dest_path)
        return await self._look(lambda: self._list(parts))

    async def collect(self, dest_path: str, file: DeliveredFile, temp: Path) -> str:
        """See `Delivery.collect`. A cancelled call may go on writing `temp` for a while."""
        parts = (*parts_below(self._root, dest_path), *name_parts(file))
        return await asyncio.to_thread(self._collect, parts, file, temp)

    async def remove(self, dest_path: str) -> bool:
        """See `Delivery.remove`; always True."""
        parts = parts_below(self._root, dest_path)
        await asyncio.to_thread(self._remove, parts)
        return True

    async def check(self) -> None:
        """See `Delivery.check`."""
        await self._look(self._check_mount)

    async def close(self) -> None:
        """Nothing is held open."""

    async def _look(self, look: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                return await asyncio.to_thread(look)
        except TimeoutError as exc:
            raise DependencyDown(
                "incoming", f"{self._mount} (TORRENTINO_DEST_MOUNT) does not respond"
            ) from exc

    # --- in threads

    def _list(self, parts: tuple[str, ...]) -> list[DeliveredFile]:
        try:
            status = self._status(parts)
            if status is None:
                self._check_mount()
                return []
            if not stat.S_ISDIR(status.st_mode):
                raise AttemptFailed(ErrorType.STORAGE, "the ticket's folder is not a folder")
            return sorted(_walk(self._mount.joinpath(*parts)), key=lambda file: file.name)
        except OSError as exc:
            raise self._error(exc, "cannot be read") from exc

    def _collect(self, parts: tuple[str, ...], file: DeliveredFile, temp: Path) -> str:
        try:
            status = self._status(parts)
        except OSError as exc:
            raise self._error(exc, "cannot be read") from exc
        if status is None:
            self._check_mount()
        if status is None or not stat.S_ISREG(status.st_mode):
            raise _changed(file, "is gone")
        if status.st_size != file.size_bytes:
            raise _changed(file, f"has {status.st_size} bytes now")
        how = stage(self._mount.joinpath(*parts), temp)
        try:
            staged_bytes = temp.stat().st_size
        except OSError as exc:
            raise storage_error(exc, "looking at a staged file") from exc
        if staged_bytes != file.size_bytes:
            temp.unlink(missing_ok=True)
            raise _changed(file, f"gave {staged_bytes} bytes")
        return how

    def _remove(self, parts: tuple[str, ...]) -> None:
        try:
            absent = self._status(parts) is None
        except OSError as exc:
            raise self._error(exc, "cannot be removed") from exc
        if absent:
            self._check_mount()
        else:
            remove_tree(self._mount, self._mount.joinpath(*parts))

    def _status(self, parts: tuple[str, ...]) -> os.stat_result | None:
        """Of the last of `parts`; None when it is not there.

        A link on the way there would let whoever can write into the folder have us read, or
        remove, something elsewhere. Torrentino makes none.
        """
        path, status = self._mount, None
        for part in parts:
            path = path / part
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            if stat.S_ISLNK(status.st_mode):
                raise AttemptFailed(
                    ErrorType.STORAGE, "there is a link in the ticket's path", {"link": str(path)}
                )
        return status

    def _check_mount(self) -> None:
        try:
            with os.scandir(self._mount):
                return
        except OSError as exc:
            raise self._error(exc, "is not visible") from exc

    def _error(self, exc: OSError, what: str) -> DownloadsError:
        """Every failure to read the incoming folder is the place's fault, never the item's."""
        where = (
            f"TORRENTINO_DEST_MOUNT={self._mount} {what} ({exc.strerror or exc}): it must be the"
            f" folder that Torrentino sees as TORRENTINO_DEST_ROOT={self._root}"
        )
        if isinstance(exc, PermissionError):
            return Misconfigured("incoming", f"{where}, readable by user id {os.getuid()}")
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            return Misconfigured("incoming", where)
        return DependencyDown("incoming", where)


def _walk(folder: Path) -> Iterator[DeliveredFile]:
    pending, entries_seen = [""], 0
    while pending:
        prefix = pending.pop()
        for entry in _scan(folder / prefix):
            entries_seen += 1
            if entries_seen > MAX_ENTRIES:
                raise AttemptFailed(
                    ErrorType.STORAGE, f"the ticket's folder has more than {MAX_ENTRIES} entries"
                )
            name = f"{prefix}{entry.name}"
            if not is_safe_name(entry.name) or entry.is_symlink():
                log.warning("delivered_entry_skipped", name=ascii(name)[:500])
            elif entry.is_dir(follow_symlinks=False):
                if name.count("/") < MAX_DEPTH:
                    pending.append(f"{name}/")
                else:
                    log.warning("delivered_folder_too_deep", name=name[:500])
            elif entry.is_file(follow_symlinks=False) and _size(entry) > 0:
                yield DeliveredFile(name=name, size_bytes=_size(entry))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries, at most one more than allowed; none when it was removed under way."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry, _ in zip(entries, range(MAX_ENTRIES + 1), strict=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _changed(file: DeliveredFile, what: str) -> AttemptFailed:
    return AttemptFailed(
        ErrorType.STORAGE,
        f"the placed file {what}",
        {"file": file.name, "listed_bytes": file.size_bytes},
    )
