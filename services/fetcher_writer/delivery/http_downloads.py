"""Taking the originals over HTTP from the folder where the torrent client keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path, PurePosixPath

from services.fetcher_writer.delivery.base import DeliveredFile, nearest_first, not_there
from services.fetcher_writer.delivery.http_folder import Entry, HttpFiles, name_of, size_of
from services.fetcher_writer.delivery.http_transfer import unreachable
from shared.errors import AttemptFailed

# Looking into each folder beside it is a request each: the nearest names come first.
_MOST_LOOKED_INTO = 200


class HttpTorrents(HttpFiles):
    """`dest_root` is where the client saves, `files_url` the same folder.

    A path names a torrent's folder, or the file of one that has no folder.
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

    async def collect(self, dest_path: str, file: DeliveredFile, temp: Path) -> str:
        """See `Delivery.collect`."""
        parts = self._parts(dest_path)
        # The last name may be a file in the torrent's folder, or again the torrent's own.
        own = await self._entry(parts) if parts[-1] == file.name else None
        if own is not None and own.get("type") == "file":
            return await self._collect(parts, file, temp)
        return await super().collect(dest_path, file, temp)

    async def locate(self, path: str, size_bytes: int | None, *, exact: bool = False) -> str:
        """See `Delivery.locate`."""
        *above, name = self._parts(path)
        listing = await self._listing(above)
        entries = {found: each for each in listing or [] if (found := name_of(each)) is not None}
        own_bytes = await self._bytes(above, name, entries)
        if own_bytes is not None and (not size_bytes or own_bytes == size_bytes):
            return path
        others = nearest_first(name, entries)[:_MOST_LOOKED_INTO] if size_bytes else []
        for entry in others:
            if await self._bytes(above, entry, entries) == size_bytes:
                return str(PurePosixPath(path).parent / entry)
        if own_bytes is not None and not exact:
            return path
        raise not_there(path, root=self._root, here=self._base, above_is_there=listing is not None)

    async def _entry(self, parts: Sequence[str]) -> Entry | None:
        *above, name = parts
        return next((e for e in await self._listing(above) or [] if name_of(e) == name), None)

    async def _bytes(
        self, above: Sequence[str], name: str, entries: dict[str, Entry]
    ) -> int | None:
        """The bytes of a file, or of all files below a folder; None when there is neither."""
        match entries.get(name, {}).get("type"):
            case "file":
                return size_of(entries[name])
            case "directory":
                try:
                    async with (
                        asyncio.timeout(self._listing_timeout_s),
                        aclosing(self._walk((*above, name))) as walk,
                    ):
                        return sum([file.size_bytes async for file in walk])
                except TimeoutError as exc:
                    raise unreachable(exc) from exc
                except AttemptFailed:
                    return None  # more than any torrent of music has
        return None
