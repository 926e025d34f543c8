"""What the stand-in of the catalog server does with its catalog, and its work in the background."""

from __future__ import annotations

import asyncio
import email
import io
import json
import sqlite3
import time
import uuid
import wave
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Json = dict[str, Any]

_TOLERANCE_MS = 6_000


class Account(Protocol):
    """Whose call it is."""

    id: int


@dataclass
class QueueItem:
    """A request, with the columns that the server shows."""

    id: str
    content_type: str
    content_id: str
    content_name: str | None
    artist_name: str | None
    requested_by_user_id: str | None
    created_at: int
    status: str = "PENDING"
    priority: str = "User"
    request_source: str = "USER"
    parent_id: str | None = None
    started_at: int | None = None
    completed_at: int | None = None
    last_attempt_at: int | None = None
    next_retry_at: int | None = None
    retry_count: int = 0
    max_retries: int = 8
    error_type: str | None = None
    error_message: str | None = None
    bytes_downloaded: int | None = None
    processing_duration_ms: int | None = None


@dataclass
class Job:
    """An upload."""

    id: str
    user_id: str
    original_filename: str
    context_id: str | None
    context_type: str
    created_at: int
    status: str = "PENDING"
    matched_album_id: str | None = None
    tracks_matched: int = 0
    tracks_converted: int = 0
    error_message: str | None = None
    review: Json | None = None
    data: bytes = b""

    def shown(self) -> Json:
        """As the server shows it."""
        fields = asdict(self)
        del fields["data"], fields["review"]
        return fields


@dataclass
class Oddities:
    """What goes wrong; change it at any time."""

    # Answers instead of the real ones, by a part of the path.
    answers: dict[str, Callable[[], Response]] = field(default_factory=dict)
    # Awaited before each answer, with the path.
    before: Callable[[str], Any] | None = None
    # The call has its effect, and its answer is lost, so often, by a part of the path.
    lost: dict[str, int] = field(default_factory=dict)
    # Called between two pages of the queue.
    between_pages: Callable[[], None] | None = None
    # What a review offers instead of its options.
    options: list[str] | None = None
    # Whether the answer "continue" is refused.
    checks_answers: bool = False
    converts_receipts: bool = False


@dataclass(kw_only=True)
class Tasks:
    """What works in the background."""

    running: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, work: Any) -> None:
        """Begin it."""
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def end(self) -> None:
        """Cancel what is left."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


@dataclass(kw_only=True)
class Content:
    """The catalog, and which of its files are there."""

    catalog: Path
    media: Path

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Rows of the catalog."""
        with closing(sqlite3.connect(self.catalog, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql, values).fetchall()

    def track(self, track_id: str) -> Json | None:
        """A track as the server shows it."""
        rows = self.rows(
            "SELECT t.*, a.id AS album_id FROM tracks t JOIN albums a ON a.rowid = t.album_rowid"
            " WHERE t.id = ?",
            track_id,
        )
        return self._shown(rows[0]) if rows else None

    def _shown(self, row: sqlite3.Row) -> Json:
        fields = ("id", "name", "album_id", "disc_number", "track_number", "duration_ms")
        shown: Json = {name: row[name] for name in fields}
        if row["audio_uri"] is not None:
            shown["audio_uri"] = row["audio_uri"]
        return shown | {"availability": "available" if self._plays(row) else "unavailable"}

    def _plays(self, row: sqlite3.Row) -> bool:
        # As the server: no containment, and a folder counts.
        return bool(row["audio_uri"]) and (self.media / row["audio_uri"]).exists()

    def album(self, album_id: str) -> Json | None:
        """An album with its tracks, as the server shows it."""
        albums = self.rows("SELECT * FROM albums WHERE id = ?", album_id)
        if not albums:
            return None
        rows = self.rows(
            "SELECT t.*, ? AS album_id FROM tracks t WHERE t.album_rowid = ?"
            " ORDER BY t.disc_number, t.track_number",
            album_id,
            albums[0]["rowid"],
        )
        discs = [
            {
                "number": number,
                "tracks": [self._shown(row) for row in rows if row["disc_number"] == number],
            }
            for number in sorted({row["disc_number"] for row in rows})
        ]
        shown = {name: albums[0][name] for name in ("id", "name", "album_availability")}
        return {"album": shown, "artists": [], "discs": discs}

    def recompute(self) -> None:
        """The rule of the job: flags of tracks from the disk, of albums from those."""
        with closing(sqlite3.connect(self.catalog, timeout=5)) as connection, connection:
            rows = connection.execute("SELECT rowid, audio_uri FROM tracks").fetchall()
            plays = [(int(bool(uri) and (self.media / uri).exists()), rowid) for rowid, uri in rows]
            connection.executemany(
                "UPDATE tracks SET track_available = ?1 WHERE rowid = ?2 AND track_available <> ?1",
                plays,
            )
            connection.execute(
                "UPDATE albums SET album_availability = (SELECT CASE"
                " WHEN coalesce(sum(track_available), 0) = 0 THEN 'missing'"
                " WHEN sum(track_available) = count(*) THEN 'complete' ELSE 'partial' END"
                " FROM tracks WHERE album_rowid = albums.rowid)"
            )


class AvailabilityJob:
    """The job that computes the flags."""

    def __init__(self, content: Content, tasks: Tasks) -> None:
        self._content = content
        self._tasks = tasks
        self._running = False
        self.seconds = 0.02
        self.runs: list[Json] = []

    def show(self, _: Request, __: Account) -> Response:
        """Its state."""
        return JSONResponse(
            {
                "id": "catalog_availability_stats",
                "is_running": self._running,
                "last_run": self.runs[-1] if self.runs else None,
            }
        )

    def trigger(self, _: Request, __: Account) -> Response:
        """Start it, unless it runs."""
        if self._running:
            return JSONResponse({"error": "Job is already running"}, 409)
        self._running = True
        self._tasks.start(self._run())
        said = {"status": "triggered", "job_id": "catalog_availability_stats"}
        return JSONResponse(said, 202)

    async def _run(self) -> None:
        started = _rfc3339()
        self._content.recompute()
        await asyncio.sleep(self.seconds)
        self.runs.append(
            {
                "started_at": started,
                "finished_at": _rfc3339(),
                "status": "completed",
                "error_message": None,
                "triggered_by": "manual",
            }
        )
        self._running = False


class Ingestion:
    """Uploads, their reviews, and the bells that they cause."""

    def __init__(
        self, content: Content, queue: dict[str, QueueItem], odd: Oddities, tasks: Tasks
    ) -> None:
        self._content = content
        self._queue = queue
        self._odd = odd
        self._tasks = tasks
        self.jobs: dict[str, Job] = {}
        self.bells: list[Json] = []

    async def upload(self, request: Request, user: Account) -> Response:
        """Take a file, and look for its album."""
        name, data, fields = _form(request.headers["content-type"], await request.body())
        job = Job(
            id=str(uuid.uuid4()),
            user_id=str(user.id),
            original_filename=name,
            context_id=fields.get("context_id") or None,
            context_type=fields.get("context_type", "spontaneous").upper(),
            created_at=int(time.time() * 1000),
            data=data,
        )
        self.jobs[job.id] = job
        self._tasks.start(self._identify(job))
        return JSONResponse({"job_id": job.id, "job_ids": [job.id], "status": "PENDING"})

    async def _identify(self, job: Job) -> None:
        await asyncio.sleep(0.02)
        job.status = "IDENTIFYING_ALBUM"
        item = self._queue.get(job.context_id or "")
        if item is None:
            return
        item.status = "IN_PROGRESS"
        album = self._content.album(item.content_id) if item.content_type == "ALBUM" else None
        if album is None:
            job.status, job.error_message = "FAILED", "Album not in catalog"
            return
        job.matched_album_id = item.content_id
        tracks = [track for disc in album["discs"] for track in disc["tracks"]]
        length_ms = _length_ms(job.data)
        close = abs(tracks[0]["duration_ms"] - length_ms) <= _TOLERANCE_MS
        if (len(tracks) == 1 and close) or self._odd.converts_receipts:
            self._convert(job, item, tracks[0]["id"])
            return
        options = self._odd.options or [f"album:{item.content_id}", "no_match"]
        text = json.dumps([{"id": each, "label": each} for each in options])
        job.review = {"job_id": job.id, "question": "Confirm the album:", "options": text}
        job.status = "AWAITING_REVIEW"

    def _convert(self, job: Job, item: QueueItem, track_id: str) -> None:
        """Its second copy, to which the uri points from then on."""
        uri = f"audio/{track_id[:2]}/{track_id[2:4]}/{track_id}.ogg"
        path = self._content.media / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(job.data)
        with closing(sqlite3.connect(self._content.catalog, timeout=5)) as connection, connection:
            connection.execute("UPDATE tracks SET audio_uri = ? WHERE id = ?", (uri, track_id))
        job.tracks_matched = job.tracks_converted = 1
        self._complete(job, item)

    def _complete(self, job: Job, item: QueueItem) -> None:
        job.status, item.status = "COMPLETED", "COMPLETED"
        item.completed_at, item.bytes_downloaded = int(time.time()), len(job.data)
        bell = {"user_id": item.requested_by_user_id, "title": f"{item.content_name} is ready"}
        self.bells.append(bell | {"request_id": item.id})

    def my_jobs(self, request: Request, user: Account) -> Response:
        """The uploads of an account, the newest first."""
        own = [job for job in self.jobs.values() if job.user_id == str(user.id)]
        limit = int(request.query_params.get("limit", "50"))
        return JSONResponse([job.shown() for job in reversed(own)][:limit])

    def details(self, request: Request, _: Account) -> Response:
        """An upload and its review."""
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return Response(status_code=404)
        said: Json = {"job": job.shown(), "files": [], "candidates": [], "review": job.review}
        return JSONResponse(said)

    def delete_job(self, request: Request, _: Account) -> Response:
        """Remove an upload."""
        gone = self.jobs.pop(request.path_params["id"], None) is None
        return Response(status_code=404 if gone else 204)

    async def resolve(self, request: Request, _: Account) -> Response:
        """Answer a review."""
        job = self.jobs.get(request.path_params["id"])
        option = json.loads(await request.body())["selected_option"]
        if job is None or job.status != "AWAITING_REVIEW":
            status = job.status if job else "nothing"
            text = f"Invalid job state: expected AWAITING_REVIEW, got {status}"
            return JSONResponse({"error": text}, 400)
        if option == "no_match" or (option == "continue" and self._odd.checks_answers):
            job.status, job.error_message = "FAILED", "Album not in catalog"
            self._queue[job.context_id or ""].status = "FAILED"
        else:
            self._complete(job, self._queue[job.context_id or ""])
        return JSONResponse({"job": job.shown()})


def _form(content_type: str, body: bytes) -> tuple[str, bytes, dict[str, str]]:
    """The file's name, the file, and the other fields of a form."""
    parsed = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\n\n" + body)
    name, data = "", b""
    fields: dict[str, str] = {}
    for part in parsed.walk():
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            continue
        if (filename := part.get_filename()) is not None:
            name, data = filename, content
        else:
            key = str(part.get_param("name", header="content-disposition"))
            fields[key] = content.decode()
    return name, data, fields


def _length_ms(data: bytes) -> int:
    with wave.open(io.BytesIO(data)) as sound:
        return int(sound.getnframes() * 1000 / sound.getframerate())


def _rfc3339() -> str:
    now = time.time_ns()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{at}.{now % 1_000_000_000:09d}+00:00"
