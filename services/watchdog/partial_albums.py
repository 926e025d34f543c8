"""The tracks of partial albums: those that have a file for one track at least, and lack another.

The catalog's own `album_availability` is not used: it says what the catalog server computed last,
and knows nothing of files that the catalog does not name yet.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence

from services.watchdog.store import Store
from shared.catalog.models import AlbumUris, PageAlbum, Scope, Track
from shared.catalog.sqlite import Catalog
from shared.db.media_root import MediaRoot
from shared.db.presence import Seen
from shared.threads import MEDIA


class PartialAlbums:
    """Reads the catalog by pages of rowids, and of each page the tracks of partial albums."""

    def __init__(self, *, catalog: Catalog, store: Store, root: MediaRoot) -> None:
        self._catalog = catalog
        self._store = store
        self._root = root

    async def pages(
        self, scope: Scope, *, after_rowid: int, page_size: int
    ) -> AsyncGenerator[tuple[int, list[Track]], None]:
        """As `Catalog.pages`. A page reads at most 2,000 tracks of each of its albums.

        Raises:
            InvalidRequest, Unavailable: as `Catalog.pages`; PostgreSQL or the disk is unavailable.
        """
        while True:
            page = await self._catalog.page_albums(
                scope, after_rowid=after_rowid, page_size=page_size
            )
            if page is None:
                return
            end, albums = page
            partial = await self._partial(albums)
            yield end, await self._tracks(scope, after_rowid, end, partial)
            after_rowid = end

    async def _tracks(
        self, scope: Scope, after_rowid: int, end: int, albums: Sequence[PageAlbum]
    ) -> list[Track]:
        if not albums:
            return []
        return await self._catalog.page_of_albums(
            scope, after_rowid=after_rowid, end=end, albums=albums
        )

    async def _partial(self, albums: Sequence[PageAlbum]) -> list[PageAlbum]:
        """Those of these albums that are partial; most albums have no file at all."""
        recorded = await self._store.albums_with_files([album.id for album in albums])
        possible = [album for album in albums if album.named or album.id in recorded]
        return [album for album in possible if await self._is_partial(album)]

    async def _is_partial(self, album: PageAlbum) -> bool:
        tracks = await self._catalog.album_uris(album)
        known, _ = await self._store.known(list(tracks.uris))
        seen = await MEDIA.run(known.look, self._root.path, tracks.uris)
        return _some_but_not_all(tracks, seen.values())


def _some_but_not_all(tracks: AlbumUris, seen: Collection[Seen]) -> bool:
    present = [each for each in seen if each.recorded or each.candidates or each.broken]
    return bool(present) and (len(present) < len(tracks.uris) or not tracks.whole)
