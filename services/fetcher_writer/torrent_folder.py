"""Taking the originals out of the folder where the torrent client keeps, and seeds, them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from services.fetcher_writer.beneath import folder_below, status_below
from services.fetcher_writer.delivery import DeliveredFile
from services.fetcher_writer.shared_folder import SharedFolder


class TorrentFolder(SharedFolder):
    """`dest_root` is where Torrentino's client saves, `dest_mount` the same folder as we see it.

    A path names a torrent's folder, or the file of one that has no folder. Nothing there is ever
    changed: not a mode, and nothing is removed. So a file that is linked from here keeps its own.
    """

    _named = "DOWNLOADS"
    _theirs = True

    async def remove(self, dest_path: str) -> bool:
        """See `Delivery.remove`; always False."""
        self._parts(dest_path)
        return False

    # --- in threads

    def _list(self, parts: tuple[str, ...]) -> list[DeliveredFile]:
        size_bytes = self._size_of_file(parts)
        if size_bytes is None:
            return super()._list(parts)
        return [DeliveredFile(name=parts[-1], size_bytes=size_bytes)] if size_bytes else []

    def _collect(self, parts: tuple[str, ...], file: DeliveredFile, temp: Path) -> str:
        # The last name may be a file in the torrent's folder, or again the torrent's own.
        own = parts[:-1]
        if own[-1] == parts[-1] and self._size_of_file(own) is not None:
            parts = own
        return super()._collect(parts, file, temp)

    def _size_of_file(self, parts: tuple[str, ...]) -> int | None:
        """The size of what is there, None when it is no file."""
        *above, name = parts
        try:
            with folder_below(self._mount, above) as fd:
                found = status_below(fd, name)
                if found is None or not stat.S_ISREG(found.st_mode):
                    return None
                self._device = os.fstat(fd).st_dev
                return found.st_size
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._error(exc, "cannot be read") from exc
