"""Collecting the originals from the folder where the torrent client keeps and seeds them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from services.fetcher_writer.delivery.base import DeliveredFile, is_safe_name
from services.fetcher_writer.delivery.dirfd import folder_below, status_below
from services.fetcher_writer.delivery.foreign import total_bytes
from services.fetcher_writer.delivery.shared_folder import SharedFolder, walk
from services.fetcher_writer.delivery.torrent_data import find_entry, not_there
from shared.errors import AttemptFailed


class DownloadFolder(SharedFolder):
    """`dest_root` is where Torrentino's client saves, `dest_mount` the same folder on this machine.

    A path names a torrent's folder, or the file of a torrent without a folder. Nothing there is
    changed or removed: a file that is linked from here keeps its mode.
    """

    _named = "DOWNLOADS"
    _theirs = True

    async def remove(self, dest_path: str) -> bool:
        """See `Delivery.remove`; always False."""
        self._parts(dest_path)
        return False

    async def locate(self, path: str, size_bytes: int | None, *, exact: bool = False) -> str:
        """See `Delivery.locate`."""
        *above, name = self._parts(path)
        found = await find_entry(
            name,
            size_bytes,
            exact=exact,
            measure=lambda entry: self._calls.soon(lambda: self._bytes(above, entry)),
            list_names=lambda: self._calls.soon(lambda: self._names(above)),
        )
        if found is None:
            there = await self._calls.soon(lambda: self._is_folder(above))
            raise not_there(
                path,
                root=self._root,
                here=str(self._mount),
                above_is_there=there,
                own_folder=bool(above),
            )
        return str(PurePosixPath(path).parent / found)

    # --- in threads

    def _names(self, above: Sequence[str]) -> list[str]:
        try:
            with folder_below(self._mount, above) as fd, os.scandir(fd) as entries:
                return [entry.name for entry in entries if is_safe_name(entry.name)]
        except FileNotFoundError:
            self._check_mount()
            return []
        except OSError as exc:
            raise self._error(exc, "cannot be read", above) from exc

    def _bytes(self, above: Sequence[str], name: str) -> frozenset[int] | None:
        """The bytes of a file, or of all files below a folder; None when there is neither.

        Two numbers where other programs have left files there: with those, and without.
        """
        try:
            with folder_below(self._mount, above) as fd:
                found = status_below(fd, name)
                if found is None or stat.S_ISREG(found.st_mode):
                    return None if found is None else frozenset([found.st_size])
                if not stat.S_ISDIR(found.st_mode):
                    return None
            with folder_below(self._mount, [*above, name]) as fd:
                return total_bytes(list(walk(fd)))
        except (FileNotFoundError, AttemptFailed):
            return None  # gone by now, or more entries than any torrent of music has
        except OSError as exc:
            raise self._error(exc, "cannot be read", (*above, name)) from exc

    def _is_folder(self, parts: Sequence[str]) -> bool:
        try:
            with folder_below(self._mount, parts):
                return True
        except FileNotFoundError:
            self._check_mount()
            return False
        except OSError as exc:
            raise self._error(exc, "cannot be read", parts) from exc

    def _list(self, parts: tuple[str, ...]) -> list[DeliveredFile]:
        size_bytes = self._size_of_file(parts)
        if size_bytes is None:
            return super()._list(parts)
        return [DeliveredFile(name=parts[-1], size_bytes=size_bytes)] if size_bytes else []

    def _parts_of(self, parts: tuple[str, ...], file: DeliveredFile) -> tuple[str, ...]:
        alone = file.name == parts[-1] and self._size_of_file(parts) is not None
        return parts if alone else super()._parts_of(parts, file)

    def _collect(self, parts: tuple[str, ...], file: DeliveredFile, temp: Path) -> str:
        # The last name is a file in the torrent's folder, or the torrent itself, named twice.
        own = parts[:-1]
        if own[-1] == parts[-1] and self._size_of_file(own) is not None:
            parts = own
        return super()._collect(parts, file, temp)

    def _size_of_file(self, parts: tuple[str, ...]) -> int | None:
        """The size of the file there; None when there is no file."""
        *above, name = parts
        try:
            with folder_below(self._mount, above) as fd:
                found = status_below(fd, name)
                if found is None or not stat.S_ISREG(found.st_mode):
                    return None
                self.device = os.fstat(fd).st_dev
                return found.st_size
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._error(exc, "cannot be read", parts) from exc
