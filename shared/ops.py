"""`/healthz`, `/readyz` and `/metrics` of every service, on OPS_HOST and OPS_PORT."""

from __future__ import annotations

import asyncio
import json

from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.app import App
from shared.errors import Unavailable
from shared.health import Condition
from shared.web import WebServer

_CHECK_S = 3.0
_CONNECTIONS = 64


class OpsServer:
    """The duty that answers orchestrators and Prometheus."""

    name = "ops"

    def __init__(self, app: App) -> None:
        self._app = app
        # A second series for each metric, with the time of its creation: of no use here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        routes = [
            Route("/healthz", _healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", _metrics),
        ]
        self.server = WebServer(
            self.name,
            Starlette(routes=routes),
            host=app.settings.ops_host,
            port=app.settings.ops_port,
            variable="OPS_PORT",
            grace_s=1,
            connections=_CONNECTIONS,
        )
        # The check of PostgreSQL that runs now: however many ask, it takes one connection.
        self._checking: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        await self.server.run(stop)

    async def _readyz(self, _: Request) -> Response:
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check_database(), name="readiness")
        await asyncio.shield(self._checking)
        checks = {
            name: _shown(condition) for name, condition in self._app.health.conditions().items()
        }
        for name in self._app.awaited - checks.keys():
            checks[name] = {"ok": False, "detail": "not checked yet"}
        # Without NATS the sweeps do all work, only later. PostgreSQL must be there, and so must
        # have been, once, the dependencies that the settings name.
        ready = bool(checks["postgres"]["ok"]) and not self._app.awaited
        body = {"ready": ready, "checks": checks, **self._app.said}
        return Response(
            json.dumps(body), status_code=200 if ready else 503, media_type="application/json"
        )

    async def _check_database(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_S), self._app.database.connection() as connection:
                await connection.fetchval("SELECT count(*) FROM installation")
        except (Unavailable, TimeoutError) as error:
            self._app.health.down("postgres", str(error) or "no answer within 3 s")
        else:
            self._app.health.up("postgres")


def _shown(condition: Condition) -> dict[str, object]:
    next_try_at = condition.next_try_at
    return {
        "ok": condition.ok,
        "detail": condition.detail,
        "since": int(condition.since.timestamp()),
        "circuit": condition.state.name.lower(),
        "alarm": condition.alarm,
        "next_try_at": None if next_try_at is None else int(next_try_at.timestamp()),
    }


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
