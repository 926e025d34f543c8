"""A stand-in for the catalog server's API, over a real catalog.db and media folder.

It does what the running server was seen to do, also where that is odd: an unknown `status` is
ignored, a login answers JSON without a content type, an unknown path is the web app's page, a
request never completes by itself. tests/contract runs the same tests against it and the real one.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.local.servers import free_port
from shared.web import WebServer
from tests.support.catalog_server_jobs import (
    AvailabilityJob,
    Content,
    Ingestion,
    Oddities,
    QueueItem,
    Tasks,
)

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


@dataclass(kw_only=True)
class CatalogServerStandin:
    """Serves on loopback between `start` and `stop`; what it knows stays in between."""

    catalog: Path
    media: Path
    ingestion: bool = False
    port: int = field(default_factory=free_port)
    users: dict[str, User] = field(default_factory=dict)
    queue: dict[str, QueueItem] = field(default_factory=dict)
    odd: Oddities = field(default_factory=Oddities)
    # Every call that was answered: method, path, status.
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    logins: int = 0
    _bucket: float = _ADMIN_BURST
    _filled_at: float = field(default_factory=time.monotonic)
    _stop: asyncio.Event | None = None
    _serving: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.tasks = Tasks()
        self.content = Content(catalog=self.catalog, media=self.media)
        self.availability = AvailabilityJob(self.content, self.tasks)
        self.uploads = Ingestion(self.content, self.queue, self.odd, self.tasks)

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
        await self.tasks.end()

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
                route(job, self.availability.show, "GET", "ServerAdmin"),
                route(f"{job}/trigger", self.availability.trigger, "POST", "ServerAdmin"),
                route(f"{ingest}/upload", self.uploads.upload, "POST", "EditCatalog"),
                route(f"{ingest}/my-jobs", self.uploads.my_jobs, "GET", "EditCatalog"),
                route(f"{ingest}/job/{{id}}/details", self.uploads.details, "GET", "EditCatalog"),
                route(f"{ingest}/job/{{id}}", self.uploads.delete_job, "DELETE", "EditCatalog"),
                route(
                    f"{ingest}/review/{{id}}/resolve", self.uploads.resolve, "POST", "EditCatalog"
                ),
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
        album = self.content.album(body["album_id"])
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
        track = self.content.track(body["track_id"])
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

    async def _batch(self, request: Request, _: User) -> Response:
        body = json.loads(await request.body())
        total = sum(len(body.get(kind, [])) for kind in ("artists", "albums", "tracks"))
        if total > 100:
            text = f"Batch request exceeds maximum of 100 items (requested {total})"
            return PlainTextResponse(text, 400)

        def result(found: Json | None) -> Json:
            return {"error": "not_found"} if found is None else {"ok": found}

        tracks = {
            each["id"]: result(self.content.track(each["id"])) for each in body.get("tracks", [])
        }
        albums = {
            each["id"]: result(self.content.album(each["id"])) for each in body.get("albums", [])
        }
        return JSONResponse({"artists": {}, "albums": albums, "tracks": tracks})


async def _made(result: Any) -> Response:
    answer = await result if asyncio.iscoroutine(result) else result
    assert isinstance(answer, Response)
    return answer
