"""Collecting from a file server beside Torrentino, which lists folders as nginx does.

The server needs `autoindex on; autoindex_format json;`, and should have `disable_symlinks on;`,
because its listings do not tell a link from a file: see `deploy/nginx`. nginx does not list names
that begin with a dot, so such files are not collected.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import structlog

from services.fetcher_writer.delivery.base import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_FILE_BYTES,
    DeliveredFile,
    is_safe_name,
    name_parts,
    parts_below,
)
from services.fetcher_writer.delivery.foreign import is_foreign_folder
from services.fetcher_writer.delivery.http_transfer import (
    Download,
    Sleep,
    status_error,
    unreachable,
)
from shared.errors import AttemptFailed, ErrorType, Misconfigured

log = structlog.get_logger(__name__)

_MAX_LISTING_BYTES = 16 * 1024 * 1024
_LISTING_ADVICE = "its server needs `autoindex on; autoindex_format json;`"

Entry = dict[str, object]


class HttpFolder:
    """`files_url` is the folder `dest_root` of Torrentino, over HTTP. `close` it once.

    Raises:
        Misconfigured: `files_url` can never work.
    """

    # The variables that name its URL, and its path as Torrentino sees it.
    _url_named = "TORRENTINO_FILES_URL"
    _root_named = "TORRENTINO_DEST_ROOT"

    def __init__(
        self,
        *,
        dest_root: str,
        files_url: str,
        timeout_s: float = 30,
        max_bytes: int = MAX_FILE_BYTES,
        client: httpx.AsyncClient | None = None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._root = dest_root
        self._base = _base_url(files_url, named=self._url_named)
        self._max_bytes = max_bytes
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 jitter is no secret
        # httpx limits each read; this limits the listing of a folder with all below it.
        self._listing_timeout_s = 4 * timeout_s
        self._own = client is None
        self._http = client or httpx.AsyncClient(
            timeout=timeout_s,
            verify=ssl.create_default_context() if self._base.startswith("https") else False,
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close the connections, unless the caller passed the client."""
        if self._own:
            await self._http.aclose()

    async def files(self, dest_path: str) -> list[DeliveredFile]:
        """See `Delivery.files`."""
        parts = self._parts(dest_path)
        try:
            async with asyncio.timeout(self._listing_timeout_s):
                top = await self._listing(parts)
                if top is None:
                    await self.check()
                    return []
                async with aclosing(self._walk(parts, top)) as walk:
                    return sorted([file async for file in walk], key=lambda file: file.name)
        except TimeoutError as exc:
            raise unreachable(exc, _path(parts)) from exc

    async def exists(self, dest_path: str) -> bool:
        """See `Delivery.exists`."""
        return await self._listing(self._parts(dest_path)) is not None

    async def proves(self, dest_path: str) -> bool:
        """See `Delivery.proves`."""
        files = await self.files(dest_path)
        if not files:
            return False
        parts = await self._parts_of(self._parts(dest_path), files[0])
        headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
        url = f"{self._base}/{_path(parts)}"
        try:
            async with (
                asyncio.timeout(self._listing_timeout_s),
                self._http.stream("GET", url, headers=headers) as response,
            ):
                return response.status_code in (200, 206)
        except (httpx.HTTPError, TimeoutError) as exc:
            raise unreachable(exc, f"/{_path(parts)}") from exc

    async def _parts_of(self, parts: Sequence[str], file: DeliveredFile) -> Sequence[str]:
        """Where a listed file is."""
        return (*parts, *name_parts(file))

    async def identity(self) -> str:
        """See `Delivery.identity`."""
        return self._base

    def another(self, dest_path: str) -> Misconfigured:
        """See `Delivery.another`."""
        here = f"{self._base}/{_path(self._parts(dest_path))}/"
        return Misconfigured(
            "incoming",
            f"Torrentino has files at {dest_path}, which is {here} here, and there is no such"
            f" folder, nor that of another download: {self._url_named} serves another folder than"
            f" {self._root_named}={self._root} of Torrentino. Serve the same folder of the host; in"
            " docker-compose.yml, at the volumes of the file server:"
            f" - <the host's folder that Torrentino has as {self._root}>:/files:ro",
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
        """See `Delivery.collect`."""
        parts = await self._parts_of(self._parts(dest_path), file)
        if file.size_bytes > self._max_bytes:
            raise AttemptFailed(
                ErrorType.STORAGE,
                f"the placed file is larger than {self._max_bytes} bytes",
                {"file": file.name, "listed_bytes": file.size_bytes},
            )
        url = f"{self._base}/{_path(parts)}"
        download = Download(http=self._http, url=url, file=file, sleep=self._sleep, rng=self._rng)
        await download.to(temp)
        return "http"

    async def takes_room(self, media_path: Path) -> bool:  # noqa: ARG002 (always)
        """See `Delivery.takes_room`: always."""
        return True

    async def remove(self, dest_path: str) -> bool:
        """See `Delivery.remove`; always False, a file server only reads."""
        self._parts(dest_path)
        return False

    def _parts(self, dest_path: str) -> tuple[str, ...]:
        return parts_below(self._root, dest_path, setting=self._root_named)

    async def check(self) -> None:
        """See `Delivery.check`."""
        # The beginning is enough: the whole listing may be long.
        async with self._get(()) as response:
            if response is None:
                raise Misconfigured(
                    "incoming",
                    f"{self._url_named} answers 404: it must be the folder that Torrentino sees"
                    f" as {self._root_named}={self._root}; {_LISTING_ADVICE}",
                )
            async for piece in response.aiter_bytes():
                if piece.strip():
                    if not piece.lstrip().startswith(b"["):
                        raise _no_listing(self._url_named)
                    return
            raise _no_listing(self._url_named)

    async def _walk(
        self, parts: Sequence[str], top: list[Entry] | None = None
    ) -> AsyncGenerator[DeliveredFile, None]:
        """The files below a folder; `top`: its own listing, where that was read already."""
        pending: list[tuple[str, ...]] = [()]
        entries_seen = 0
        while pending:
            folder = pending.pop()
            known = top if not folder and top is not None else None
            entries = known or await self._listing((*parts, *folder)) or []
            entries_seen += len(entries)
            if entries_seen > MAX_ENTRIES:
                raise AttemptFailed(
                    ErrorType.STORAGE, f"the ticket's folder has more than {MAX_ENTRIES} entries"
                )
            for entry in entries:
                match name_of(entry), entry.get("type"):
                    case None, _:
                        log.warning("delivered_entry_skipped", entry=ascii(entry)[:500])
                    case str(name), "directory" if is_foreign_folder(name):
                        continue
                    case str(name), "directory" if len(folder) < MAX_DEPTH:
                        pending.append((*folder, name))
                    case str(name), "file" if size_bytes := size_of(entry):
                        yield DeliveredFile(name="/".join((*folder, name)), size_bytes=size_bytes)

    async def _listing(self, parts: Sequence[str]) -> list[Entry] | None:
        """The entries of one folder; None when there is none."""
        body = bytearray()
        async with self._get(parts) as response:
            if response is None:
                return None
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _MAX_LISTING_BYTES:
                    raise AttemptFailed(ErrorType.STORAGE, "the folder's listing is too long")
        return _entries(bytes(body), named=self._url_named, path=_path(parts) or None)

    @asynccontextmanager
    async def _get(self, parts: Sequence[str]) -> AsyncIterator[httpx.Response | None]:
        """The response with a folder's listing; None when there is no such folder."""
        # Without the slash at the end nginx redirects.
        url = f"{self._base}/{_path(parts)}/" if parts else f"{self._base}/"
        try:
            async with (
                asyncio.timeout(self._listing_timeout_s),
                self._http.stream("GET", url, headers=_LISTING_HEADERS) as response,
            ):
                if response.status_code not in (200, 404):
                    raise status_error(response.status_code, _path(parts) or None)
                yield response if response.status_code == 200 else None
        except (httpx.HTTPError, TimeoutError) as exc:
            raise unreachable(exc, _path(parts) or None) from exc


_LISTING_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


def _base_url(files_url: str, *, named: str) -> str:
    try:
        url = httpx.URL(files_url.strip().rstrip("/"))
    except httpx.InvalidURL as exc:
        raise Misconfigured("incoming", f"{named} is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise Misconfigured("incoming", f"{named} must be like http://host:8081/files")
    return str(url)


def _path(parts: Sequence[str]) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _entries(body: bytes, *, named: str, path: str | None) -> list[Entry]:
    try:
        # nginx copies the bytes of a name, UTF-8 or not.
        parsed: object = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:
        raise _no_listing(named, path) from exc
    if not isinstance(parsed, list) or not all(isinstance(entry, dict) for entry in parsed):
        raise _no_listing(named, path)
    return parsed


def _no_listing(named: str, path: str | None = None) -> Misconfigured:
    what = f"does not list {path}" if path else "does not list folders"
    return Misconfigured("incoming", f"{named} {what} in JSON: {_LISTING_ADVICE}", path=path)


def name_of(entry: Entry) -> str | None:
    """The name of an entry; None where it is missing or unsafe."""
    name = entry.get("name")
    usable = isinstance(name, str) and is_safe_name(name) and "\ufffd" not in name
    return str(name) if usable else None


def size_of(entry: Entry) -> int:
    """The bytes of a file; 0 where the listing has none."""
    size = entry.get("size")
    if isinstance(size, bool) or not isinstance(size, int):
        return 0
    return max(size, 0)
