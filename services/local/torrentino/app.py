"""All routes, the gate in front of them, and the answer to an unknown path."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Scope

from services.local.torrentino.api_engine import EngineApi
from services.local.torrentino.api_search import SearchApi
from services.local.torrentino.api_system import SystemApi
from services.local.torrentino.api_tickets import TicketApi
from services.local.torrentino.api_torrents import TorrentApi
from services.local.torrentino.core import Core
from services.local.torrentino.engine import Engine
from services.local.torrentino.gate import PAGE, Gate


def make_app(core: Core, engine: Engine, hang_up: Callable[[Scope], None]) -> ASGIApp:
    """The whole server as one ASGI application; `hang_up` cuts a request's connection."""
    system, search = SystemApi(core, engine), SearchApi(core)
    api: list[BaseRoute] = [
        *TicketApi(core).routes(),
        *EngineApi(core, engine).routes(),
        *search.routes(),
        *TorrentApi(core).routes(),
        *system.routes(),
    ]

    async def no_route(request: Request, _exc: Exception) -> Response:
        return _no_route(request.method, dashboard=core.config.dashboard)

    app = Starlette(
        routes=[*api, *search.root_routes(), *system.root_routes()],
        exception_handlers={404: no_route},
    )
    app.router.redirect_slashes = False
    return Gate(app, core, lambda scope: _matches(api, scope), hang_up)


def _matches(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is not Match.NONE for route in routes)


def _no_route(method: str, *, dashboard: bool) -> Response:
    if not dashboard:
        return Response(status_code=404)
    if method in {"GET", "HEAD"}:
        return HTMLResponse(PAGE)
    return Response(status_code=405, headers={"Allow": "GET,HEAD"})
