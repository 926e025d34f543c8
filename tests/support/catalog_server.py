"""A stand-in for the catalog server's API, over a real catalog.db and media folder.

It does what the running server was seen to do, also where that is odd: an unknown `status` is
ignored, a login answers JSON without a content type, an unknown path is the web app's page, a
request never completes by itself. tests/contract runs the same tests against it and the real one.
"""

from __future__ import annotations

import asyncio
import email
import io
import json
import secrets
import sqlite3
import time
import uuid
import wave
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.local.servers import free_port
from shared.web import WebServer

Json = dict[str, Any]

EVERYTHING = ("AccessCatalog", "RequestContent", "ViewAnalytics", "EditCatalog", "ServerAdmin")
LISTENER = ("AccessCatalog", "RequestContent")
_DEVICES = 6
_ADMIN_BURST, _ADMIN_A_SECOND = 60.0, 1.0
_PLACES = {"Urgent": 1, "User": 2, "Expansion": 3, "Background": 4}
_TOLERANCE_MS = 6_000


@dataclass
class User:
    """An account; `tokens` by device, the oldest first."""

    id: int
    password: str
    permissions: set[str]
    tokens: dict[str, list[str]] = field(default_factory=dict)


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
class CatalogServerStandin:
    """Serves on loopback between `start` and `stop`; what it knows stays in between."""

    catalog: Path
    media: Path
    ingestion: bool = False
    job_s: float = 0.02
    port: int = field(default_factory=free_port)
    users: dict[str, User] = field(default_factory=dict)
    queue: dict[str, QueueItem] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    bells: list[Json] = field(default_factory=list)
    odd: Oddities = field(default_factory=Oddities)
    # Every call that was answered: method, path, status.
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    logins: int = 0
    job_runs: list[Json] = field(default_factory=list)
    _job_running: bool = False
    _bucket: float = _ADMIN_BURST
    _filled_at: float = field(default_factory=time.monotonic)
    _stop: asyncio.Event | None = None
    _serving: asyncio.Task[None] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """CATALOG_SERVER_URL."""
        return f"http://127.0.0.1:{self.port}"

    def add_user(self, handle: str, permissions: Sequence[str] = EVERYTHING) -> User:
        """An account whose password is `pw-` and its handle."""
        user = User(id=len(self.users) + 1, password=f"pw-{handle}", permissions=set(permissions))
        self.users[handle] = user
        return user

    # --- life

    async def start(self) -> None:
        """Serve, at the same address each time."""
        self._stop = asyncio.Event()
        server = WebServer(
            "catalog server", self._app(), host="127.0.0.1", port=self.port, variable="", grace_s=2
        )
        self._serving = asyncio.create_task(server.run(self._stop))
        await server.started.wait()

    async def stop(self) -> None:
        """End; connections are refused from then on."""
        if self._stop is not None and self._serving is not None:
            self._stop.set()
            await self._serving
        self._stop = self._serving = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> CatalogServerStandin:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- routes

    def _app(self) -> Starlette:
        def route(
            path: str, handler: Callable[..., Any], method: str, permission: str | None
        ) -> Route:
            return Route(path, self._guarded(handler, permission), methods=[method])

        download, ingest = "/v1/download", "/v1/ingestion"
        job = "/v1/admin/jobs/catalog_availability_stats"
        return Starlette(
            routes=[
                route("/v1/auth/login", self._login, "POST", None),
                route("/v1/auth/session", self._session, "GET", ""),
                route(f"{download}/request/album", self._ask_album, "POST", "RequestContent"),
                route(f"{download}/request/track", self._ask_track, "POST", "RequestContent"),
                route(f"{download}/admin/requests", self._requests, "GET", "ViewAnalytics"),
                route(f"{download}/admin/request/{{id}}", self._delete, "DELETE", "EditCatalog"),
                route(f"{download}/admin/retry/{{id}}", self._retry, "POST", "EditCatalog"),
                route("/v1/content/batch", self._batch, "POST", "AccessCatalog"),
                route(job, self._job, "GET", "ServerAdmin"),
                route(f"{job}/trigger", self._trigger, "POST", "ServerAdmin"),
                route(f"{ingest}/upload", self._upload, "POST", "EditCatalog"),
                route(f"{ingest}/my-jobs", self._my_jobs, "GET", "EditCatalog"),
                route(f"{ingest}/job/{{id}}/details", self._details, "GET", "EditCatalog"),
                route(f"{ingest}/job/{{id}}", self._delete_job, "DELETE", "EditCatalog"),
                route(f"{ingest}/review/{{id}}/resolve", self._resolve, "POST", "EditCatalog"),
                Route("/{path:path}", self._page, methods=["GET"]),
            ]
        )

    async def _page(self, request: Request) -> Response:
        """The web app, which knows its own paths."""
        return HTMLResponse("<html>the web app</html>")

    def _guarded(self, handler: Callable[..., Any], permission: str | None) -> Any:
        async def handle(request: Request) -> Response:
            path = request.url.path
            if self.odd.before is not None:
                await self.odd.before(path)
            answer = self._odd_answer(path) or await self._allowed(request, handler, permission)
            if path.startswith("/v1/content/"):
                answer.headers["Cache-Control"] = "max-age=60"
            self.calls.append((request.method, path, answer.status_code))
            for part, times in self.odd.lost.items():
                if part in path and times > 0:
                    self.odd.lost[part] = times - 1
                    return PlainTextResponse("", status_code=502)
            return answer

        return handle

    def _odd_answer(self, path: str) -> Response | None:
        return next((make() for part, make in self.odd.answers.items() if part in path), None)

    async def _allowed(
        self, request: Request, handler: Callable[..., Any], permission: str | None
    ) -> Response:
        if request.url.path.startswith("/v1/admin/") and not self._has_room():
            return PlainTextResponse(
                "Too Many Requests! Wait for 0s", 429, headers={"retry-after": "0"}
            )
        if permission is None:
            return await _made(handler(request))
        user = self._user(request)
        if user is None:
            return Response(status_code=401)
        needed = {permission} - {""}
        if request.url.path.startswith("/v1/download/"):
            needed.add("RequestContent")
        if not needed <= user.permissions:
            return Response(status_code=403)
        if request.url.path.startswith("/v1/ingestion/") and not self.ingestion:
            return PlainTextResponse("Ingestion manager not enabled", 503)
        return await _made(handler(request, user))

    def _has_room(self) -> bool:
        now = time.monotonic()
        self._bucket += (now - self._filled_at) * _ADMIN_A_SECOND
        self._bucket, self._filled_at = min(self._bucket, _ADMIN_BURST), now
        if self._bucket < 1:
            return False
        self._bucket -= 1
        return True

    # --- sessions

    def _user(self, request: Request) -> User | None:
        # Any header, even an empty one, hides the cookie.
        token = request.headers.get("authorization")
        if token is None:
            token = request.cookies.get("session_token", "")
        for user in self.users.values():
            if any(token in tokens for tokens in user.tokens.values()):
                return user
        return None

    async def _login(self, request: Request) -> Response:
        self.logins += 1
        body = json.loads(await request.body())
        missing = {"user_handle", "password", "device_uuid", "device_type"} - body.keys()
        if missing:
            return PlainTextResponse(f"missing field `{min(missing)}`", 422)
        device = body["device_uuid"]
        if not 8 <= len(device) <= 64:
            text = f"device_uuid must be 8-64 characters, got {len(device)}"
            return PlainTextResponse(text, 400)
        user = self.users.get(body["user_handle"])
        if user is None or user.password != body["password"]:
            return Response(status_code=401)
        token = secrets.token_urlsafe(48)
        # A new device is the youngest; the seventh kills the oldest one's session.
        user.tokens[device] = [*user.tokens.pop(device, []), token]
        while len(user.tokens) > _DEVICES:
            del user.tokens[next(iter(user.tokens))]
        said = {
            "token": token,
            "user_handle": body["user_handle"],
            "permissions": sorted(user.permissions),
        }
        answer = Response(json.dumps(said), 201)
        answer.set_cookie("session_token", token)
        return answer

    def end_sessions(self) -> None:
        """Forget every session, as after a restore of its database."""
        for user in self.users.values():
            user.tokens.clear()

    def _session(self, _: Request, user: User) -> Response:
        handle = next(name for name, each in self.users.items() if each is user)
        return JSONResponse({"user_handle": handle, "permissions": sorted(user.permissions)})

    # --- requests

    def ask(self, user_id: str | None, kind: str, content_id: str, **fields: Any) -> str:
        """A request that is in the queue already; returns its id."""
        item = QueueItem(
            id=str(uuid.uuid4()),
            content_type=kind,
            content_id=content_id,
            content_name=fields.pop("content_name", content_id),
            artist_name=fields.pop("artist_name", None),
            requested_by_user_id=user_id,
            created_at=fields.pop("created_at", int(time.time())),
            **fields,
        )
        self.queue[item.id] = item
        return item.id

    async def _ask_album(self, request: Request, user: User) -> Response:
        body = json.loads(await request.body())
        if "album_id" not in body:
            return PlainTextResponse("missing field `album_id`", 422)
        album = self._album(body["album_id"])
        if album is None:
            return PlainTextResponse(f"Album not found in catalog: {body['album_id']}", 400)
        tracks = [track for disc in album["discs"] for track in disc["tracks"]]
        name = album["album"]["name"]
        if all(track["availability"] == "available" for track in tracks):
            text = f"No tracks to download - all tracks in '{name}' are already available"
            return PlainTextResponse(text, 400)
        if self._active("ALBUM", body["album_id"]):
            return PlainTextResponse("Album is already in download queue", 400)
        id_ = self.ask(str(user.id), "ALBUM", body["album_id"], content_name=name)
        return JSONResponse({"request_id": id_, "status": "PENDING"})

    async def _ask_track(self, request: Request, user: User) -> Response:
        body = json.loads(await request.body())
        track = self._track(body["track_id"])
        problem = (
            f"Track not found in catalog: {body['track_id']}"
            if track is None
            else "Track is already available"
            if track["availability"] == "available"
            else "Track is already in download queue"
            if self._active("TRACK_AUDIO", body["track_id"])
            else None
        )
        if problem is not None or track is None:
            refused = {"success": False, "message": problem, "queue_item_id": None}
            return JSONResponse(refused, 400)
        id_ = self.ask(str(user.id), "TRACK_AUDIO", body["track_id"], content_name=track["name"])
        said = {"success": True, "message": "Track queued for download", "queue_item_id": id_}
        return JSONResponse(said)

    def _active(self, kind: str, content_id: str) -> bool:
        return any(
            (item.content_type, item.content_id) == (kind, content_id)
            and item.status not in ("COMPLETED", "FAILED")
            for item in self.queue.values()
        )

    def _requests(self, request: Request, _: User) -> Response:
        query = request.query_params
        limit, offset = query.get("limit", "50"), query.get("offset", "0")
        if not (limit.isdigit() and offset.isdigit()):
            return PlainTextResponse("Failed to deserialize query string", 400)
        flags = [query.get(name, "false") for name in ("exclude_completed", "top_level_only")]
        if not set(flags) <= {"true", "false"}:
            return PlainTextResponse("Failed to deserialize query string", 400)
        # Any case; one that it does not know is ignored, and so is every other parameter.
        status = query.get("status", "").upper()
        known = {"PENDING", "IN_PROGRESS", "COMPLETED", "FAILED", "RETRY_WAITING"}
        rows = [
            item
            for item in self.queue.values()
            if (status not in known or item.status == status)
            and (flags[0] == "false" or item.status != "COMPLETED")
        ]
        rows.sort(key=lambda item: (_PLACES[item.priority], item.created_at))
        page = [asdict(item) for item in rows[int(offset) : int(offset) + int(limit)]]
        if self.odd.between_pages is not None:
            self.odd.between_pages()
        return JSONResponse(page)

    def _delete(self, request: Request, _: User) -> Response:
        id_ = request.path_params["id"]
        if self.queue.pop(id_, None) is None:
            return PlainTextResponse(f"Queue item not found: {id_}", 400)
        return JSONResponse({"success": True, "message": "Request deleted", "queue_item_id": id_})

    def _retry(self, request: Request, _: User) -> Response:
        id_ = request.path_params["id"]
        item = self.queue.get(id_)
        if item is None or item.status == "COMPLETED":
            return PlainTextResponse(f"Item not found or already completed: {id_}", 400)
        item.status, item.error_type, item.error_message = "PENDING", None, None
        said = {"success": True, "message": "Item queued for retry", "queue_item_id": id_}
        return JSONResponse(said)

    # --- content

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(self.catalog, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql, values).fetchall()

    def _track(self, track_id: str) -> Json | None:
        rows = self._rows(
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

    def _album(self, album_id: str) -> Json | None:
        albums = self._rows("SELECT * FROM albums WHERE id = ?", album_id)
        if not albums:
            return None
        rows = self._rows(
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

    async def _batch(self, request: Request, _: User) -> Response:
        body = json.loads(await request.body())
        total = sum(len(body.get(kind, [])) for kind in ("artists", "albums", "tracks"))
        if total > 100:
            text = f"Batch request exceeds maximum of 100 items (requested {total})"
            return PlainTextResponse(text, 400)

        def result(found: Json | None) -> Json:
            return {"error": "not_found"} if found is None else {"ok": found}

        tracks = {each["id"]: result(self._track(each["id"])) for each in body.get("tracks", [])}
        albums = {each["id"]: result(self._album(each["id"])) for each in body.get("albums", [])}
        return JSONResponse({"artists": {}, "albums": albums, "tracks": tracks})

    # --- the availability job

    def _job(self, _: Request, __: User) -> Response:
        return JSONResponse(
            {
                "id": "catalog_availability_stats",
                "is_running": self._job_running,
                "last_run": self.job_runs[-1] if self.job_runs else None,
            }
        )

    def _trigger(self, _: Request, __: User) -> Response:
        if self._job_running:
            return JSONResponse({"error": "Job is already running"}, 409)
        self._job_running = True
        self._in_background(self._run_job())
        said = {"status": "triggered", "job_id": "catalog_availability_stats"}
        return JSONResponse(said, 202)

    async def _run_job(self) -> None:
        started = _rfc3339()
        self.recompute()
        await asyncio.sleep(self.job_s)
        self.job_runs.append(
            {
                "started_at": started,
                "finished_at": _rfc3339(),
                "status": "completed",
                "error_message": None,
                "triggered_by": "manual",
            }
        )
        self._job_running = False

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

    # --- ingestion

    async def _upload(self, request: Request, user: User) -> Response:
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
        self._in_background(self._identify(job))
        return JSONResponse({"job_id": job.id, "job_ids": [job.id], "status": "PENDING"})

    async def _identify(self, job: Job) -> None:
        await asyncio.sleep(0.02)
        job.status = "IDENTIFYING_ALBUM"
        item = self.queue.get(job.context_id or "")
        if item is None:
            return
        item.status = "IN_PROGRESS"
        album = self._album(item.content_id) if item.content_type == "ALBUM" else None
        if album is None:
            job.status, job.error_message = "FAILED", "Album not in catalog"
            return
        job.matched_album_id = item.content_id
        tracks = [track for disc in album["discs"] for track in disc["tracks"]]
        length_ms = _length_ms(job.data)
        close = abs(tracks[0]["duration_ms"] - length_ms) <= _TOLERANCE_MS
        if (len(tracks) == 1 and close) or self.odd.converts_receipts:
            self._convert(job, item, tracks[0]["id"])
            return
        options = self.odd.options or [f"album:{item.content_id}", "no_match"]
        text = json.dumps([{"id": each, "label": each} for each in options])
        job.review = {"job_id": job.id, "question": "Confirm the album:", "options": text}
        job.status = "AWAITING_REVIEW"

    def _convert(self, job: Job, item: QueueItem, track_id: str) -> None:
        """Its second copy, to which the uri points from then on."""
        uri = f"audio/{track_id[:2]}/{track_id[2:4]}/{track_id}.ogg"
        path = self.media / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(job.data)
        with closing(sqlite3.connect(self.catalog, timeout=5)) as connection, connection:
            connection.execute("UPDATE tracks SET audio_uri = ? WHERE id = ?", (uri, track_id))
        job.tracks_matched = job.tracks_converted = 1
        self._complete(job, item)

    def _complete(self, job: Job, item: QueueItem) -> None:
        job.status, item.status = "COMPLETED", "COMPLETED"
        item.completed_at, item.bytes_downloaded = int(time.time()), len(job.data)
        bell = {"user_id": item.requested_by_user_id, "title": f"{item.content_name} is ready"}
        self.bells.append(bell | {"request_id": item.id})

    def _my_jobs(self, request: Request, user: User) -> Response:
        own = [job for job in self.jobs.values() if job.user_id == str(user.id)]
        limit = int(request.query_params.get("limit", "50"))
        return JSONResponse([job.shown() for job in reversed(own)][:limit])

    def _details(self, request: Request, _: User) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return Response(status_code=404)
        said: Json = {"job": job.shown(), "files": [], "candidates": [], "review": job.review}
        return JSONResponse(said)

    def _delete_job(self, request: Request, _: User) -> Response:
        gone = self.jobs.pop(request.path_params["id"], None) is None
        return Response(status_code=404 if gone else 204)

    async def _resolve(self, request: Request, _: User) -> Response:
        job = self.jobs.get(request.path_params["id"])
        option = json.loads(await request.body())["selected_option"]
        if job is None or job.status != "AWAITING_REVIEW":
            status = job.status if job else "nothing"
            text = f"Invalid job state: expected AWAITING_REVIEW, got {status}"
            return JSONResponse({"error": text}, 400)
        if option == "no_match" or (option == "continue" and self.odd.checks_answers):
            job.status, job.error_message = "FAILED", "Album not in catalog"
            self.queue[job.context_id or ""].status = "FAILED"
        else:
            self._complete(job, self.queue[job.context_id or ""])
        return JSONResponse({"job": job.shown()})

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _made(result: Any) -> Response:
    answer = await result if asyncio.iscoroutine(result) else result
    assert isinstance(answer, Response)
    return answer


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
