"""The gate in front of all handlers: counting, faults on demand, authentication."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.local.torrentino.core import Core
from services.local.torrentino.faults import Faults
from services.local.torrentino.routing import API

PAGE = "<!doctype html><title>Quentin Torrentino</title><div id=app></div>"
_NAMED = {
    "tickets": "{id}",
    "torrents": "{hash}",
    "catalog": "{hash}",
    "progress": "{id}",
    "process": "{id}",
}
_NO_NAMES = frozenset({"status", "stats", "add"})
_LOG = logging.getLogger(__name__)


class Gate:
    """ASGI middleware around the routes.

    `is_api`: whether a path is one of the API's routes; the dashboard's answer to any other path
    needs no credentials, even below the API's prefix. `hang_up` cuts a request's connection.
    """

    def __init__(
        self,
        app: ASGIApp,
        core: Core,
        is_api: Callable[[Scope], bool],
        hang_up: Callable[[Scope], None],
    ) -> None:
        self._app, self._core, self._is_api, self._hang_up = app, core, is_api, hang_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] == "lifespan" or path.startswith("/_standin/"):
            await self._app(scope, receive, send)
        elif self._core.faults.down:
            await JSONResponse({"error": "service unavailable"}, 503)(scope, receive, send)
        elif not path.startswith(f"{API}/"):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._core.requests["GET /ws"] += 1
        if self._admitted(scope):
            await self._app(scope, receive, send)
        else:
            await Response(status_code=401)(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_key(scope["method"], scope["path"])
        self._core.requests[request] += 1
        faults = self._core.faults
        if faults.take("drop_before", request):
            await self._drop(scope, receive)
            return
        answer = self._refusal(scope, request) or self._app
        answered: list[Message] = []

        async def keep(message: Message) -> None:
            answered.append(message)

        await answer(scope, receive, keep)
        if faults.delay_s > 0 and faults.delay_only in {"", request}:
            await _delayed(faults)
        if faults.take("drop_after", request):
            await self._drop(scope, receive)
        elif _changes_tickets(scope) and faults.take("database_locked_after_effect", request):
            await _locked()(scope, receive, send)
        else:
            for message in answered:
                await send(message)

    def _refusal(self, scope: Scope, request: str) -> Response | None:
        """The answer that replaces the handler's, if there is one."""
        faults = self._core.faults
        if not self._admitted(scope):
            return Response(status_code=401)
        if faults.html and scope["method"] in {"GET", "POST"}:
            return HTMLResponse(PAGE)
        if _about_tickets(scope) and faults.take("database_locked", request):
            return _locked()
        return None

    def _admitted(self, scope: Scope) -> bool:
        if self._core.faults.unauthorized:
            return False
        key = self._core.config.api_key
        if key is None or not self._is_api(scope):
            return True
        return hmac.compare_digest(_credential(Headers(scope=scope)).encode(), key.encode())

    async def _drop(self, scope: Scope, receive: Receive) -> None:
        """Close the connection and wait until the server has registered that."""
        self._hang_up(scope)
        while (await receive())["type"] != "http.disconnect":
            _LOG.debug("reading the rest of a request that gets no answer")


def request_key(method: str, path: str) -> str:
    """How `Standin.requests` counts a request: `GET /tickets/{id}`, `POST /tickets`, ..."""
    parts = path.removeprefix(API).strip("/").split("/")
    for index in range(1, len(parts)):
        if parts[index - 1] in _NAMED and parts[index] not in _NO_NAMES:
            parts[index] = _NAMED[parts[index - 1]]
    return f"{method} /{'/'.join(parts)}"


def _credential(headers: Headers) -> str:
    """The key that was sent; a Bearer header takes precedence, even with a wrong key."""
    authorization = headers.get("authorization", "")
    if authorization.startswith(("Bearer ", "bearer ")):
        return authorization[len("Bearer ") :]
    return headers.get("x-api-key", "")


def _about_tickets(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == f"{API}/tickets" or path.startswith(f"{API}/tickets/")


def _changes_tickets(scope: Scope) -> bool:
    return _about_tickets(scope) and scope["method"] in {"POST", "DELETE"}


def _locked() -> Response:
    return JSONResponse({"error": "Database error: database is locked"}, 500)


async def _delayed(faults: Faults) -> None:
    """Return when the delay is over, or set to 0."""
    clock = asyncio.get_running_loop().time
    over = clock() + faults.delay_s
    while faults.delay_s > 0 and (left_s := over - clock()) > 0:  # noqa: ASYNC110 (a test sets it)
        await asyncio.sleep(min(left_s, 0.05))
