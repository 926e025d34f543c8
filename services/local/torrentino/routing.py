"""Routes that answer as axum does: one route for all methods of a path, an empty 405."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.local.torrentino.bodies import Answer

API = "/api/v1"
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def api_route(path: str, **methods: Handler) -> Route:
    """A `route` below the API's prefix."""
    return route(f"{API}{path}", **methods)


def route(path: str, **methods: Handler) -> Route:
    """One path with a handler for each method; the keyword is the method's name."""
    table = methods | ({"HEAD": methods["GET"]} if "GET" in methods else {})

    async def endpoint(request: Request) -> Response:
        handler = table.get(request.method)
        if handler is None:
            return Response(status_code=405, headers={"Allow": ",".join(table)})
        try:
            return await handler(request)
        except Answer as answer:
            return answer.response

    return Route(path, endpoint, methods=[*_ALL_METHODS])


_ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
