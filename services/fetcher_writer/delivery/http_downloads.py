"""Collecting the originals over HTTP from the folder where the torrent client keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import PurePosixPath

from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.foreign import total_bytes
from services.fetcher_writer.delivery.http_folder import Entry, HttpFolder, name_of, size_of
from services.fetcher_writer.delivery.http_transfer import unreachable
from services.fetcher_writer.delivery.torrent_data import find_entry, not_there
from shared.errors import AttemptFailed

# Each folder that is measured costs a request for each folder in it.
_MOST_MEASURED = 200


class HttpDownloads(HttpFolder):
    """`dest_root` is where the client saves, `files_url` the same folder.

    A path names a torrent's folder, or the file of a torrent without a folder.
    """

    _url_named = "TORRENTINO_DOWNLOADS_URL"
    _root_named = "TORRENTINO_DOWNLOADS_ROOT"

    async def files(self, dest_path: str) -> list[DeliveredFile]:
        """See `Delivery.files`."""
        parts = self._parts(dest_path)
        alone = await self._entry(parts)
        if alone is not None and alone.get("type") == "file":
            size_bytes = size_of(alone)
            return [DeliveredFile(name=parts[-1], size_bytes=size_bytes)] if size_bytes else []
        return await super().files(dest_path)

    async def exists(self, dest_path: str) -> bool:
        """See `Delivery.exists`."""
        return await self._entry(self._parts(dest_path)) is not None

    async def _parts_of(self, parts: Sequence[str], file: DeliveredFile) -> Sequence[str]:
        # The last name is a file in the torrent's folder, or the torrent itself, named twice.
        own = await self._entry(parts) if parts[-1] == file.name else None
        if own is not None and own.get("type") == "file":
            return parts
        return await super()._parts_of(parts, file)

    async def locate(self, path: str, size_bytes: int | None, *, exact: bool = False) -> str:
        """See `Delivery.locate`."""
        *above, name = self._parts(path)
        listing = await self._listing(above)
        entries = {found: each for each in listing or [] if (found := name_of(each)) is not None}

        async def names() -> Iterable[str]:
            return entries

        found = await find_entry(
            name,
            size_bytes,
            exact=exact,
            measure=lambda entry: self._bytes(above, entry, entries),
            list_names=names,
            most=_MOST_MEASURED,
        )
        if found is None:
            there = listing is not None
            raise not_there(
                path,
                root=self._root,
                here=self._base,
                above_is_there=there,
                own_folder=bool(above),
            )
        return str(PurePosixPath(path).parent / found)

    async def _entry(self, parts: Sequence[str]) -> Entry | None:
        *above, name = parts
        return next((e for e in await self._listing(above) or [] if name_of(e) == name), None)

    async def _bytes(
        self, above: Sequence[str], name: str, entries: dict[str, Entry]
    ) -> frozenset[int] | None:
        """The bytes of a file, or of all files below a folder, with and without foreign files.

        None when there is neither.
        """
        match entries.get(name, {}).get("type"):
            case "file":
                return frozenset([size_of(entries[name])])
            case "directory":
                try:
                    async with (
                        asyncio.timeout(self._listing_timeout_s),
                        aclosing(self._walk((*above, name))) as walk,
                    ):
                        return total_bytes([file async for file in walk])
                except TimeoutError as exc:
                    raise unreachable(exc, "/".join((*above, name))) from exc
                except AttemptFailed:
                    return None  # more entries than any torrent of music has
        return None
