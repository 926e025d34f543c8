"""The HTTP API: its routes, errors as problem documents, and the time that each answer takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ingest import problems
from services.ingest.concurrency_limit import ConcurrencyLimit, Door
from shared.crashpoints import reached
from shared.errors import Refused, Unavailable
from shared.health import Health
from shared.metrics import HTTP_SECONDS


def make_api(routes: Sequence[Route], health: Health, door: Door) -> Starlette:
    """The ASGI application; what a request finds unavailable is reported to `health`.

    `door` refuses requests without a valid key, before they take a place.
    """

    async def unavailable(request: Request, error: Exception) -> Response:
        assert isinstance(error, Unavailable)
        health.failed(error)
        return await problems.unavailable(request, error)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(_Measured), Middleware(ConcurrencyLimit, door=door)],
        exception_handlers={
            Refused: problems.refused,
            Unavailable: unavailable,
            HTTPException: problems.http_error,
            Exception: problems.bug,
        },
    )
    # A redirect would be an answer without a problem document, and without a check of the key.
    app.router.redirect_slashes = False
    return app


class _Measured:
    """ASGI middleware: measures how long each route takes to answer."""

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
