"""The HTTP API: the original plan's eight routes, one item and what is done with it, scans."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ingest import limits, problems, stats
from services.ingest.auth import Keys, NotAllowed, Principal
from services.ingest.concurrency_limit import Admission
from services.ingest.decisions import Decisions
from services.ingest.items import Items
from services.ingest.retry import Retries
from services.ingest.scans import Scans
from services.ingest.service import Order, Requests
from services.ingest.withdrawals import Withdrawals
from shared.crashpoints import reached
from shared.db.health_reports import Conditions
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.errors import InvalidRequest, Refused, Unavailable
from shared.health import Health
from shared.metrics import HTTP_SECONDS
from shared.untrusted import json_object

Json: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

_MOST_PER_PAGE = 200
_PER_PAGE = 50
_MOST_OFFSET = 1_000_000
_MOST_BODY_BYTES = 64 * 1024
_V1 = "/v1/download"


class _Rest(StringConvertor):
    """All that is left of the path, line breaks included; Starlette's `path` stops at one."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


class Api:
    """The handlers; everything they need is handed in."""

    def __init__(
        self,
        *,
        keys: Keys,
        requests: Requests,
        items: Items,
        withdrawals: Withdrawals,
        retries: Retries,
        decisions: Decisions,
        scans: Scans,
        database: Database,
        root: MediaRoot,
        health: Health,
        conditions: Conditions,
        policy: limits.Policy,
        bounds: stats.Bounds,
    ) -> None:
        self._keys = keys
        self._requests = requests
        self._items = items
        self._withdrawals = withdrawals
        self._retries = retries
        self._decisions = decisions
        self._scans = scans
        self._database = database
        self._root = root
        self._health = health
        self._conditions = conditions
        self._policy = policy
        self._bounds = bounds

    def app(self) -> Starlette:
        """The ASGI application."""
        # `:rest`, because an id with a slash in it is a malformed id and not another route.
        routes = [
            Route(f"{_V1}/track/{{track_id:rest}}", self.track, methods=["POST"]),
            Route(f"{_V1}/album/{{album_id:rest}}", self.album, methods=["POST"]),
            Route(f"{_V1}/my-requests", self.my_requests),
            Route(f"{_V1}/limits", self.limits),
            Route(f"{_V1}/items/{{item_id:rest}}/retry", self.retry, methods=["POST"]),
            Route(f"{_V1}/items/{{item_id:rest}}", self.item, methods=["GET"]),
            Route(f"{_V1}/items/{{item_id:rest}}", self.withdraw, methods=["DELETE"]),
            Route(f"{_V1}/admin/scan", self.scan, methods=["POST"]),
            Route(f"{_V1}/admin/queue-all", self.queue_all, methods=["POST"]),
            Route(f"{_V1}/admin/scan/{{scan_id:rest}}", self.scan_report, methods=["GET"]),
            Route(f"{_V1}/admin/scan/{{scan_id:rest}}", self.cancel_scan, methods=["DELETE"]),
            Route(f"{_V1}/admin/stats", self.stats),
            Route(f"{_V1}/admin/failed", self.failed),
            Route(f"{_V1}/admin/attention", self.attention),
            Route(f"{_V1}/admin/items/{{item_id:rest}}/approve", self.approve, methods=["POST"]),
            Route(f"{_V1}/admin/items/{{item_id:rest}}/reject", self.reject, methods=["POST"]),
        ]
        app = Starlette(
            routes=routes,
            middleware=[Middleware(_Measured), Middleware(Admission)],
            exception_handlers={
                Refused: problems.refused,
                Unavailable: self._held,
                HTTPException: problems.http_error,
                Exception: problems.bug,
            },
        )
        # A redirect would be the one answer without a problem document, and without a key.
        app.router.redirect_slashes = False
        return app

    async def track(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        order = Order(
            caller=principal.caller,
            kind="track",
            content_id=request.path_params["track_id"],
            source="http",
        )
        accepted = await self._requests.track(order)
        if accepted.available:
            return await self._available(order.content_id)
        ids = accepted.queued or accepted.joined
        [item] = await self._items.by_ids(ids.values())
        return JSONResponse(
            {"item": item, "deduplicated": not accepted.queued, "available": False},
            status_code=202,
            headers={"Location": f"{_V1}/items/{item['id']}"},
        )

    async def _available(self, track_id: str) -> Response:
        items = await self._items.latest_completed([track_id])
        item = items[0] if items else None
        return JSONResponse({"item": item, "deduplicated": False, "available": True})

    async def album(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        order = Order(
            caller=principal.caller,
            kind="album",
            content_id=request.path_params["album_id"],
            source="http",
        )
        accepted = await self._requests.album(order)
        ids = [*accepted.queued.values(), *accepted.joined.values()]
        return JSONResponse(
            {
                "album_id": order.content_id,
                "request_id": accepted.request_id,
                "queued": len(accepted.queued),
                "already_queued": len(accepted.joined),
                "already_available": len(accepted.available),
                "items": await self._items.by_ids(ids),
            },
            status_code=202,
        )

    async def my_requests(self, request: Request) -> Response:
        user_id = self._user(request)
        limit, offset = _paging(request)
        page = await self._items.mine(user_id, limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def limits(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        async with self._database.connection() as connection:
            usage = await limits.usage(connection, principal.caller)
        unlimited = principal.caller.unlimited
        can_request = unlimited or (
            usage.requests_today < self._policy.max_per_day
            and usage.in_queue < self._policy.max_queue
        )
        return JSONResponse(
            {
                "requests_today": usage.requests_today,
                "max_per_day": None if unlimited else self._policy.max_per_day,
                "in_queue": usage.in_queue,
                "max_queue": None if unlimited else self._policy.max_queue,
                "can_request": can_request,
                "unlimited": unlimited,
            }
        )

    async def item(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        detail = await self._items.detail(
            request.path_params["item_id"], for_user=principal.sees_only
        )
        return JSONResponse(detail)

    async def withdraw(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        for_all = _flag(request, "for_all")
        if for_all and principal.sees_only is not None:
            raise NotAllowed("only an administrator cancels for others; leave for_all out")
        item_id = request.path_params["item_id"]
        others_wait = await self._withdrawals.item(
            item_id,
            user_id=_name(principal),
            administrator=principal.sees_only is None,
            for_all=for_all,
        )
        [item] = await self._items.by_ids([item_id])
        return JSONResponse({"item": item, "others_wait": others_wait})

    async def retry(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        item_id = request.path_params["item_id"]
        await self._retries.item(item_id, caller=principal.caller)
        [item] = await self._items.by_ids([item_id])
        return JSONResponse(
            {"item": item}, status_code=202, headers={"Location": f"{_V1}/items/{item_id}"}
        )

    async def scan(self, request: Request) -> Response:
        return await self._start_scan(request, queue=False)

    async def queue_all(self, request: Request) -> Response:
        return await self._start_scan(request, queue=True)

    async def _start_scan(self, request: Request, *, queue: bool) -> Response:
        principal = self._keys.admin(request)
        body = await _json_body(request)
        scan_id = await self._scans.start(body, queue=queue, user_id=_name(principal))
        return JSONResponse(
            {"scan_id": scan_id},
            status_code=202,
            headers={"Location": f"{_V1}/admin/scan/{scan_id}"},
        )

    async def scan_report(self, request: Request) -> Response:
        self._keys.admin(request)
        return JSONResponse(await self._scans.report(request.path_params["scan_id"]))

    async def cancel_scan(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        scan_id = request.path_params["scan_id"]
        return JSONResponse(await self._scans.cancel(scan_id, user_id=_name(principal)))

    async def stats(self, request: Request) -> Response:
        self._keys.admin(request)
        return JSONResponse(
            await stats.stats(
                self._database,
                self._root,
                self._health,
                self._conditions,
                bounds=self._bounds,
            )
        )

    async def failed(self, request: Request) -> Response:
        self._keys.admin(request)
        limit, offset = _paging(request)
        page = await self._items.failed(limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def attention(self, request: Request) -> Response:
        self._keys.admin(request)
        limit, offset = _paging(request)
        page = await self._items.attention(limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def approve(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        item_id = request.path_params["item_id"]
        file = (await _json_body(request)).get("file")
        await self._decisions.approve(item_id, file, by=_name(principal))
        return await self._decided(item_id)

    async def reject(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        item_id = request.path_params["item_id"]
        await self._decisions.reject(item_id, by=_name(principal))
        return await self._decided(item_id)

    async def _decided(self, item_id: str) -> Response:
        [item] = await self._items.by_ids([item_id])
        return JSONResponse({"item": item})

    async def _held(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Unavailable)
        self._health.down(error.dependency, error.detail)
        return await problems.held(request, error)

    def _user(self, request: Request) -> str:
        return _name(self._keys.principal(request))


def _name(principal: Principal) -> str:
    user_id = principal.caller.user_id
    assert user_id is not None, "whoever calls over HTTP has a name"
    return user_id


def _paging(request: Request) -> tuple[int, int]:
    return (
        _number(request, "limit", default=_PER_PAGE, least=1, most=_MOST_PER_PAGE),
        _number(request, "offset", default=0, least=0, most=_MOST_OFFSET),
    )


def _number(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest(f"{name}={text[:40]!r}: send a whole number from {least} to {most}")
    if not least <= int(text) <= most:
        raise InvalidRequest(f"{name}={text}: send a number from {least} to {most}")
    return int(text)


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name}={text[:40]!r}: send true or false")
    return text == "true"


async def _json_body(request: Request) -> Json:
    """The body as an object; no body is an empty one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            raise InvalidRequest(f"the body is larger than {_MOST_BODY_BYTES} bytes")
    if not body.strip():
        return {}
    return json_object(body)


class _Measured:
    """Measures how long each route takes to answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                reached("ingest.answering")
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if scope["type"] == "http":
                endpoint = scope.get("endpoint")
                route = getattr(endpoint, "__name__", "none")
                HTTP_SECONDS.labels(route, status).observe(time.monotonic() - started)
