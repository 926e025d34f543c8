"""The catalog server's SQLite file, read while the server writes to it."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from shared.catalog import queries
from shared.catalog.models import Album, AlbumUris, PageAlbum, Scope, Track
from shared.catalog.queries import MOST_OF_AN_ALBUM, Queries
from shared.errors import DependencyDown, InvalidRequest
from shared.untrusted import content_id

T = TypeVar("T")
Row = Sequence[Any]

# Every query uses an index; only a failing disk takes this long.
QUERY_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 5.0
# Between two checks of the time-out.
_CHECK_STEPS = 20_000


class Catalog:
    """Reads tracks and albums; never writes, and keeps no transaction open between two calls.

    One thread owns the connection, so the event loop never waits for the disk. The catalog server
    may write to the file (WAL) or replace it at any time. Every method raises
    DependencyDown("catalog") when it cannot be read; the next call tries again.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 5) -> None:
        """Open nothing yet. `busy_timeout_s`: how long to wait for a locked database."""
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
        self._opened: _Opened | None = None

    async def track(self, track_id: str) -> Track | None:
        """The track with this id; None if the catalog has none."""
        return await self._read(lambda reader: reader.track(track_id))

    async def album(self, album_id: str) -> Album | None:
        """The album with this id and its tracks; None if the catalog has none."""
        return await self._read(lambda reader: reader.album(album_id))

    async def audio_uris(self, track_ids: Iterable[str]) -> dict[str, str | None]:
        """The `audio_uri` of those of these tracks that the catalog has, as in `Track`.

        Empty if the catalog does not have the column.
        """
        ids = list(track_ids)
        return await self._read(lambda reader: reader.audio_uris(ids))

    async def page_albums(
        self, scope: Scope, *, after_rowid: int, page_size: int
    ) -> tuple[int, list[PageAlbum]] | None:
        """The next page of tracks as its albums: (rowid of its end, albums); None after the last.

        Raises:
            InvalidRequest: the scope needs a column that this catalog lacks.
        """
        return await self._read(lambda reader: reader.page_albums(scope, after_rowid, page_size))

    async def album_uris(self, album: PageAlbum) -> AlbumUris:
        """Where the album's tracks have their files, of the first 2,000 tracks."""
        return await self._read(lambda reader: reader.album_uris(album.rowid))

    async def page_of_albums(
        self, scope: Scope, *, after_rowid: int, end: int, albums: Iterable[PageAlbum]
    ) -> list[Track]:
        """The tracks of these albums on the page that ends at the rowid `end`."""
        rowids = [album.rowid for album in albums]
        return await self._read(
            lambda reader: reader.page_of_albums(scope, after_rowid, end, rowids)
        )

    async def pages(
        self, scope: Scope, *, after_rowid: int = 0, page_size: int = 2000
    ) -> AsyncGenerator[tuple[int, list[Track]], None]:
        """The tracks of the scope by rowid: (rowid to continue after, at most `page_size` tracks).

        A page is empty if the scope leaves out all of its rows. Rows whose id cannot be a file name
        are left out. Each page is one read transaction: tracks that are added or removed meanwhile
        may be missed, all others are returned once. Not for partial albums: see `page_albums`.

        Raises:
            InvalidRequest: the scope names no album, or needs a column that this catalog lacks.
        """
        assert scope.kind != "partial_albums", "the catalog does not know which are"
        while True:
            page = await self._page(scope, after_rowid, page_size)
            if page is None:
                return
            yield page
            after_rowid = page[0]

    async def _page(
        self, scope: Scope, after: int, page_size: int
    ) -> tuple[int, list[Track]] | None:
        return await self._read(lambda reader: reader.page(scope, after, page_size))

    async def count(self, scope: Scope) -> int | None:
        """About how many tracks `pages` reads; None where only a scan could count them."""
        return await self._read(lambda reader: reader.count(scope))

    async def check(self) -> None:
        """Return if the catalog can be opened and has the required tables."""
        await self._read(lambda reader: reader.count(Scope()))

    async def close(self) -> None:
        """Close the file. The object cannot be used any more."""
        if (opened := self._opened) is not None:
            opened.connection.interrupt()  # ends a running query
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    asyncio.wrap_future(self._worker.submit(self._drop)), _CLOSE_TIMEOUT_S
                )
        self._worker.shutdown(wait=False)

    async def _read(self, ask: Callable[[_Reader], T]) -> T:
        loop = asyncio.get_running_loop()
        # The thread ends much earlier by itself, unless the disk does not answer at all.
        limit_s = QUERY_TIMEOUT_S + self._busy_timeout_s + 10
        try:
            async with asyncio.timeout(limit_s):
                return await loop.run_in_executor(self._worker, self._read_blocking, ask)
        except TimeoutError as exc:
            raise DependencyDown(
                "catalog", f"{self._path} does not answer: check its disk"
            ) from exc

    def _read_blocking(self, ask: Callable[[_Reader], T]) -> T:
        try:
            opened = self._connect()
            return opened.read(ask)
        except DependencyDown:
            self._drop()
            raise
        except (sqlite3.Error, OSError) as exc:
            self._drop()
            raise DependencyDown("catalog", f"{self._path}: {_advice(exc)}") from exc

    def _connect(self) -> _Opened:
        found = self._path.stat()
        identity = (found.st_dev, found.st_ino)
        if self._opened is not None and self._opened.identity != identity:
            self._drop()
        if self._opened is None:
            self._opened = _Opened(self._path, identity, self._busy_timeout_s)
        return self._opened

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.connection.close()


class _Opened:
    """A connection to one file, with the statements for its columns."""

    def __init__(self, path: Path, identity: tuple[int, int], busy_timeout_s: float) -> None:
        self.identity = identity
        self.connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
        )
        try:
            # A name that is no UTF-8 must not make the whole page unreadable.
            self.connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self.connection.execute("PRAGMA query_only = 1")
            self._queries = queries.probe(self.connection)
        except BaseException:
            self.connection.close()
            raise

    def read(self, ask: Callable[[_Reader], T]) -> T:
        """Answer `ask` from one snapshot, and end its transaction."""
        deadline = time.monotonic() + QUERY_TIMEOUT_S
        self.connection.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_STEPS)
        self.connection.execute("BEGIN")
        try:
            return ask(_Reader(self.connection, self._queries))
        finally:
            if self.connection.in_transaction:
                self.connection.rollback()


class _Reader:
    """The queries, inside one transaction in the worker thread."""

    def __init__(self, connection: sqlite3.Connection, statements: Queries) -> None:
        self._connection = connection
        self._sql = statements

    def track(self, track_id: str) -> Track | None:
        tracks = self._tracks(self._connection.execute(self._sql.track, (track_id,)).fetchall())
        return tracks[0] if tracks else None

    def album(self, album_id: str) -> Album | None:
        row = self._connection.execute(self._sql.album, (album_id,)).fetchone()
        if row is None:
            return None
        rows = self._connection.execute(self._sql.album_tracks, (row[0],)).fetchall()
        artists = self._names(self._sql.album_artists, [row[0]]).get(row[0])
        return Album(
            id=album_id,
            name=_text(row[2]) or album_id,
            artist=", ".join(artists) if artists else None,
            tracks=tuple(self._tracks(rows)),
            year=_year(row[3]),
            kind=_text(row[4]),
        )

    def page(self, scope: Scope, after: int, page_size: int) -> tuple[int, list[Track]] | None:
        """The next page; None after the last."""
        self._check_scope(scope)
        if scope.kind == "album":
            narrowed = {"after": after, "limit": page_size, "album_id": scope.album_id}
            narrowed["min_popularity"] = scope.min_popularity
            rows = self._connection.execute(self._sql.album_page, narrowed).fetchall()
            return (rows[-1][0], self._tracks(rows)) if rows else None
        end = self._page_end(after, page_size)
        if end is None:
            return None
        between = _between(scope, after, end)
        return end, self._tracks(self._connection.execute(self._sql.page, between).fetchall())

    def _page_end(self, after: int, page_size: int) -> int | None:
        limits = {"after": after, "limit": page_size}
        (end,) = self._connection.execute(queries.PAGE_END, limits).fetchone()
        return _whole(end)

    def page_albums(
        self, scope: Scope, after: int, page_size: int
    ) -> tuple[int, list[PageAlbum]] | None:
        """The albums of the next page; None after the last."""
        self._check_scope(scope)
        end = self._page_end(after, page_size)
        if end is None:
            return None
        rows = self._connection.execute(self._sql.page_albums, _between(scope, after, end))
        return end, [
            PageAlbum(rowid=rowid, id=album_id, named=bool(named))
            for rowid, album_id, named in rows
            if isinstance(album_id, str)
        ]

    def album_uris(self, rowid: int) -> AlbumUris:
        rows = self._connection.execute(
            self._sql.album_uris, (rowid, MOST_OF_AN_ALBUM + 1)
        ).fetchall()
        uris = {track_id: _uri(uri) for track_id, uri in rows if _is_id(track_id)}
        return AlbumUris(uris=uris, whole=len(rows) <= MOST_OF_AN_ALBUM)

    def page_of_albums(
        self, scope: Scope, after: int, end: int, rowids: Sequence[int]
    ) -> list[Track]:
        parameters = _between(scope, after, end) | {"albums": json.dumps(list(rowids))}
        rows = self._connection.execute(self._sql.page_of_albums, parameters).fetchall()
        return self._tracks(rows)

    def audio_uris(self, track_ids: Sequence[str]) -> dict[str, str | None]:
        if self._sql.audio_uris is None:
            return {}
        rows = self._connection.execute(self._sql.audio_uris, (json.dumps(list(track_ids)),))
        return {track_id: _uri(uri) for track_id, uri in rows}

    def count(self, scope: Scope) -> int | None:
        self._check_scope(scope)
        if scope.kind == "album":
            sql, parameters = queries.ALBUM_TRACK_COUNT, [scope.album_id]
        elif scope.kind == "all":
            # Rows are hardly ever deleted, and counting 100 million of them takes minutes.
            sql, parameters = queries.LAST_ROWID, []
        else:
            return None
        (number,) = self._connection.execute(sql, parameters).fetchone()
        return _whole(number) or 0

    def _check_scope(self, scope: Scope) -> None:
        if scope.kind == "album" and scope.album_id is None:
            raise InvalidRequest("the scope 'album' needs an album_id")
        if scope.min_popularity is not None:
            self._sql.require("tracks", "popularity", "filter by popularity")

    def _tracks(self, rows: Iterable[Row]) -> list[Track]:
        usable = [row for row in rows if _is_id(row[2])]
        artists = self._names(self._sql.track_artists, {row[0] for row in usable})
        albums = {row[1] for row in usable if row[1] is not None}
        album_artists = self._names(self._sql.album_artists, albums)
        return [
            _track(row, artists.get(row[0], []), album_artists.get(row[1], [])) for row in usable
        ]

    def _names(self, sql: str, rowids: Iterable[int]) -> dict[int, list[str]]:
        """The artists of each rowid, in order, each name once."""
        names: dict[int, list[str]] = {}
        for rowid, raw in self._connection.execute(sql, (json.dumps(sorted(rowids)),)):
            name = _text(raw)
            known = names.setdefault(rowid, [])
            if name and name not in known:
                known.append(name)
        return names


def _between(scope: Scope, after: int, end: int) -> dict[str, object]:
    return {"after": after, "end": end, "min_popularity": scope.min_popularity}


def _track(row: Row, artists: list[str], album_artists: list[str]) -> Track:
    _, _, track_id, name, album_id, album_name, disc, number, duration, isrc, popularity, uri = row
    album = _text(album_id)
    duration_ms = _whole(duration)
    return Track(
        id=track_id,
        name=_text(name) or track_id,
        artists=tuple(artists),
        album_id=album,
        album_name=_text(album_name) or album,
        album_artist=", ".join(album_artists) or None,
        disc_number=_whole(disc),
        track_number=_whole(number),
        duration_ms=duration_ms if duration_ms and duration_ms > 0 else None,
        isrc=_text(isrc),
        popularity=_whole(popularity),
        audio_uri=_uri(uri),
    )


def _uri(value: object) -> str | None:
    """As it is, because it is a path; what is not a text becomes one that no path can be."""
    return value if value is None or isinstance(value, str) else f"\0{value!r:.80}"


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(content_id(value, what="track id"))
    except InvalidRequest:
        return False


def _text(value: object) -> str | None:
    """As text without NUL: SQLite allows any type in any column, PostgreSQL no NUL in a text."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.replace("\0", "").strip() or None


def _year(value: object) -> int | None:
    """The year of a release date of any precision; None for 0000, which means unknown."""
    found = re.match(r"(\d{4})(?!\d)", _text(value) or "")
    return int(found[1]) or None if found else None


def _whole(value: object) -> int | None:
    if isinstance(value, int | float | str):
        try:
            return int(value)
        except (ValueError, OverflowError):
            return None
    return None


def _advice(exc: sqlite3.Error | OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "there is no such file: correct CATALOG_DB, or mount the catalog's folder"
    text = str(exc)
    if "unable to open" in text or "readonly" in text:
        return (
            f"{text}: the catalog's folder must be mounted writable, because readers of a WAL"
            " database share a file beside it"
        )
    if "interrupted" in text:
        return f"a query took longer than {QUERY_TIMEOUT_S:g} s: check the disk and the indexes"
    if "locked" in text or "busy" in text:
        return f"{text}: the catalog server is writing; retry later"
    if "not a database" in text or "malformed" in text:
        return f"{text}: it is not a catalog, or it is damaged"
    return text
