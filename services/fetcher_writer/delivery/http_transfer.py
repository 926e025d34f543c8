"""The transfer of one file over HTTP to disk: resumed when it breaks, in bounded memory."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import httpx

from services.fetcher_writer.delivery.base import DeliveredFile
from shared.backoff import Backoff
from shared.crashpoints import reached
from shared.errors import (
    AttemptFailed,
    DependencyDown,
    DownloadsError,
    ErrorType,
    Misconfigured,
    Unexplained,
)
from shared.media.place import storage_error
from shared.threads import MEDIA

Sleep = Callable[[float], Awaitable[None]]

MAX_TRIES = 5
_PIECE_BYTES = 256 * 1024
_PAUSES = Backoff(first_s=0.2, longest_s=5)
# A server that answers with an error does so for this file, or its own check tells: the place in
# work is for other files.
_MOST_REFUSALS = 3
_PAUSES_REFUSED = Backoff(first_s=0.05, longest_s=0.2)
# A transfer that is slower on average is ended: it would occupy a worker for days.
_MIN_BYTES_PER_S = 32 * 1024
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", re.ASCII)


def status_error(status: int, path: str | None = None) -> DownloadsError:
    """The error for a status with which the file server refuses; `path`: one file or folder."""
    where = f" for {path}" if path else ""
    if status in _PASSING or status >= 500:
        return DependencyDown(
            "incoming", f"TORRENTINO_FILES_URL answers {status}{where}", path=path
        )
    wanted = "serve the folder TORRENTINO_DEST_ROOT without a redirect or a log-in"
    if status == 403:
        # nginx answers 403 to both; its error log names the path.
        wanted = "be able to read all below TORRENTINO_DEST_ROOT, where no file may be a link"
    detail = f"TORRENTINO_FILES_URL answers {status}{where}: it must {wanted}"
    return Misconfigured("incoming", detail, path=path)


def unreachable(exc: Exception, path: str | None = None) -> DependencyDown:
    """The error for a missing or incomplete answer."""
    detail = f"{type(exc).__name__}: {exc}".rstrip(": ")[:300]
    where = f" for {path}" if path else ""
    message = f"no answer from TORRENTINO_FILES_URL{where} ({detail})"
    return Unexplained("incoming", message, path=path)


class Download:
    """Fetches `file` from `url`. For one use.

    The file must not change meanwhile: its size must be the listed one, and neither ETag nor
    Last-Modified may change between the tries.
    """

    def __init__(
        self,
        *,
        http: httpx.AsyncClient,
        url: str,
        file: DeliveredFile,
        sleep: Sleep,
        rng: random.Random,
    ) -> None:
        self._http = http
        self._url = url
        self._path = httpx.URL(url).path[:500]
        self._file = file
        self._sleep = sleep
        self._rng = rng
        self._etag: str | None = None
        self._modified: str | None = None

    async def to(self, temp: Path) -> None:
        """Write the whole file to `temp` and flush it to disk; an old `temp` is replaced.

        Raises:
            AttemptFailed: STORAGE, the file is gone or is not what the listing said.
            DependencyDown: `MAX_TRIES` in a row brought nothing new, the transfer is too slow, or
                our disk fails. After any failure there is no `temp`.
            Misconfigured: the server refuses, or does not serve files.
        """
        sink = _Sink(temp)
        try:
            await MEDIA.run(sink.open)
            reached("download.created")
            async with asyncio.timeout(60 + self._file.size_bytes / _MIN_BYTES_PER_S):
                await self._fill(sink)
            await MEDIA.run(sink.finish)
        except TimeoutError as exc:
            sink.discard()
            raise unreachable(exc, self._path) from exc
        except BaseException:
            sink.discard()
            raise

    async def _fill(self, sink: _Sink) -> None:
        furthest = fruitless = 0
        while sink.offset < self._file.size_bytes:
            problem: Exception = EOFError("the answer ended early")
            refusal: int | None = None
            try:
                await self._transfer(sink)
            except httpx.TransportError as exc:
                problem = exc
            except _TryAgain as exc:
                problem, refusal = exc, exc.status
            if sink.offset > furthest:
                furthest, fruitless = sink.offset, 0
            else:
                fruitless += 1
            if refusal is not None and fruitless >= _MOST_REFUSALS:
                raise status_error(refusal, self._path) from problem
            if fruitless >= MAX_TRIES:
                raise unreachable(problem, self._path) from problem
            if sink.offset < self._file.size_bytes:
                pauses = _PAUSES if refusal is None else _PAUSES_REFUSED
                await self._sleep(pauses.pause_s(fruitless, self._rng))

    async def _transfer(self, sink: _Sink) -> None:
        headers = self._resume_headers(sink)
        async with self._http.stream("GET", self._url, headers=headers) as response:
            self._require_same(response)
            if response.status_code == 200:
                # The whole file, also if a range was requested: the server has no ranges.
                sink.restart()
            async for piece in response.aiter_raw():
                if sink.offset + len(piece) > self._file.size_bytes:
                    raise self._changed("is longer than listed")
                await sink.write(piece)

    def _resume_headers(self, sink: _Sink) -> dict[str, str]:
        # Only a strong ETag or a date promises the same bytes; without one, start again.
        strong = self._etag if self._etag and not self._etag.startswith("W/") else None
        validator = strong or self._modified
        if validator is None:
            sink.restart()
        headers = {"Accept-Encoding": "identity"}
        if sink.offset and validator is not None:
            headers |= {"Range": f"bytes={sink.offset}-", "If-Range": validator}
        return headers

    def _require_same(self, response: httpx.Response) -> None:
        """Return when the answer has this file, in the same version as before."""
        status, headers = response.status_code, response.headers
        if status in (404, 410):
            raise self._changed("is gone")
        if status == 416:
            raise self._changed("is shorter than listed")
        if status in _PASSING:
            raise _TryAgain(status)
        if status not in (200, 206):
            raise status_error(status, self._path)
        if headers.get("content-encoding", "identity") != "identity":
            detail = f"TORRENTINO_FILES_URL compresses {self._path}: turn it off"
            raise Misconfigured("incoming", detail, path=self._path)
        self._require_validators(headers.get("etag"), headers.get("last-modified"))
        self._require_size(response)

    def _require_validators(self, etag: str | None, modified: str | None) -> None:
        for before, now in ((self._etag, etag), (self._modified, modified)):
            if before is not None and now is not None and before != now:
                raise self._changed("changed while it was collected")
        self._etag, self._modified = self._etag or etag, self._modified or modified

    def _require_size(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            length = response.headers.get("content-length", str(self._file.size_bytes))
            if length != str(self._file.size_bytes):
                raise self._changed(f"has {length[:20]} bytes now")
            return
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        requested = response.request.headers.get("range", "bytes=0-")
        if match is None or requested != f"bytes={match[1]}-":
            detail = f"TORRENTINO_FILES_URL answers another range of {self._path} than asked"
            raise Misconfigured("incoming", detail, path=self._path)
        if match[2] != str(self._file.size_bytes):
            raise self._changed(f"has {match[2]} bytes now")

    def _changed(self, what: str) -> AttemptFailed:
        return AttemptFailed(
            ErrorType.STORAGE,
            f"the placed file {what}",
            {"file": self._file.name, "listed_bytes": self._file.size_bytes},
        )


class _TryAgain(Exception):
    """The server answered with an error that passes."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.status = status


class _Sink:
    """The file being written. Bytes that are not on disk yet survive a dropped connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._disk: BinaryIO | None = None
        self._pending = bytearray()
        self._written_bytes = 0

    @property
    def offset(self) -> int:
        """How many bytes of the file have arrived."""
        return self._written_bytes + len(self._pending)

    def open(self) -> None:
        """Create the file; blocks."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # Not the parents: without the media root, its disk is not mounted.
            self._path.parent.mkdir(exist_ok=True)
            self._path.unlink(missing_ok=True)
            self._disk = os.fdopen(os.open(self._path, flags, 0o666), "wb")
        except OSError as exc:
            raise storage_error(exc, "creating a temporary file") from exc

    def restart(self) -> None:
        """Forget everything so far."""
        self._pending.clear()
        self._written_bytes = 0

    async def write(self, piece: bytes) -> None:
        """Append; goes to the disk in pieces of 256 KiB."""
        self._pending += piece
        if len(self._pending) >= _PIECE_BYTES:
            await MEDIA.run(self._flush)

    def finish(self) -> None:
        """Flush everything to disk and close; blocks."""
        self._flush()
        disk = self._require_open()
        try:
            disk.truncate(self._written_bytes)
            disk.flush()
            reached("download.written")
            os.fsync(disk.fileno())
            disk.close()
        except OSError as exc:
            raise storage_error(exc, "writing a temporary file") from exc

    def discard(self) -> None:
        """Close and remove the file, if the disk still allows it."""
        if self._disk is None:
            return
        # The caller raises the error that led here; the reaper removes what is left.
        with suppress(OSError):
            self._disk.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        disk = self._require_open()
        try:
            disk.seek(self._written_bytes)
            disk.write(self._pending)
            disk.flush()
        except OSError as exc:
            raise storage_error(exc, "writing a temporary file") from exc
        reached("download.piece")
        self._written_bytes += len(self._pending)
        self._pending.clear()

    def _require_open(self) -> BinaryIO:
        if self._disk is None:
            raise RuntimeError("the file is not open")
        return self._disk
