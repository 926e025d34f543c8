"""A file server with nginx's `autoindex_format json`, ranges and validators, and faults."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote


class Autoindex:
    """Serves `root` below `url`. Faults are set by attribute."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        # One for each next answer that brings a file: cut after so many bytes of its body.
        self.cuts: list[int] = []
        self.ranges = True
        self.validators = True
        self.version = 1
        # Whole answers that replace the next ones, as they go over the wire.
        self.canned: list[bytes] = []
        # Whole answers to a path, each time.
        self.refusals: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/files"
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # the client was killed, or had nothing to ask
            return
        path = unquote(head[0].split(" ")[1])
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:-2])}
        self.requests.append((path, headers))
        writer.write(self._answer(path, headers))
        try:
            await writer.drain()
        except ConnectionError:
            pass  # the client has seen enough
        finally:
            writer.close()

    def _answer(self, path: str, headers: dict[str, str]) -> bytes:
        if self.canned or path in self.refusals:
            return self.canned.pop(0) if self.canned else self.refusals[path]
        found = self.root / path.removeprefix("/files/")
        if not found.is_relative_to(self.root) or self._leads_over_a_link(found.parent):
            return _NOT_FOUND
        if found.is_symlink():
            return _NOT_FOUND if path.endswith("/") else _FORBIDDEN
        if path.endswith("/") and found.is_dir():
            return answer(200, self._listing(found), ["Content-Type: application/json"])
        if not path.endswith("/") and found.is_file():
            return self._file(found.read_bytes(), headers)
        return _NOT_FOUND

    def _leads_over_a_link(self, path: Path) -> bool:
        below = (path, *path.parents)
        return any(way.is_symlink() for way in below if way.is_relative_to(self.root))

    def _listing(self, folder: Path) -> bytes:
        entries: list[dict[str, object]] = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue  # nginx never lists them
            entry: dict[str, object] = {"name": path.name, "mtime": "Mon, 05 Jan 2026 09:23:20 GMT"}
            # A link is what it leads to.
            if path.is_dir():
                entry["type"] = "directory"
            elif path.is_file():
                entry |= {"type": "file", "size": path.stat().st_size}
            else:
                entry["type"] = "other"
            entries.append(entry)
        return json.dumps(entries).encode()

    def _file(self, body: bytes, headers: dict[str, str]) -> bytes:
        fields = ["Content-Type: application/octet-stream"]
        etag = f'"v{self.version}"'
        if self.validators:
            fields += [f"ETag: {etag}", "Last-Modified: Mon, 05 Jan 2026 09:23:20 GMT"]
        first, last = _range(headers.get("range", "bytes=0-"), len(body))
        wanted = "range" in headers and headers.get("if-range", etag) == etag
        if not (self.ranges and wanted):
            whole = answer(200, body, fields)
        elif first >= len(body):
            return answer(416, b"", [f"Content-Range: bytes */{len(body)}"])
        else:
            fields.append(f"Content-Range: bytes {first}-{last}/{len(body)}")
            whole = answer(206, body[first : last + 1], fields)
        cut = self.cuts.pop(0) if self.cuts else None
        return whole if cut is None else whole[: whole.index(b"\r\n\r\n") + 4 + cut]


def _range(wanted: str, size_bytes: int) -> tuple[int, int]:
    """The first and the last byte of "bytes=5-" and "bytes=5-9"."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    return int(first), min(int(last or size_bytes), size_bytes - 1)


def answer(status: int, body: bytes, fields: list[str]) -> bytes:
    """One HTTP answer on a connection that is closed behind it."""
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", "Connection: close", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


_NOT_FOUND = answer(404, b"<h1>404</h1>", ["Content-Type: text/html"])
_FORBIDDEN = answer(403, b"<h1>403</h1>", ["Content-Type: text/html"])
