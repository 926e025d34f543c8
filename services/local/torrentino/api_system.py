"""The handlers of `/health`, `/config`, `/audit`, `/ws`, the metrics and `/_standin`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.local.torrentino import states
from services.local.torrentino.api_engine import pool_lines
from services.local.torrentino.bodies import integer, refusal
from services.local.torrentino.core import Core
from services.local.torrentino.engine import Engine
from services.local.torrentino.routing import API, api_route, route

_LIMIT_MAX = 1000


class SystemApi:
    """The routes that concern neither tickets nor the engine."""

    def __init__(self, core: Core, engine: Engine) -> None:
        self._core, self._engine = core, engine

    def routes(self) -> list[BaseRoute]:
        """The routes under the API's prefix."""
        return [
            api_route("/health", GET=self.health),
            api_route("/config", GET=self.config),
            api_route("/audit", GET=self.audit),
            api_route("/ws", GET=self.no_upgrade),
            WebSocketRoute(f"{API}/ws", self.firehose),
        ]

    def root_routes(self) -> list[Route]:
        """The routes outside the API and its authentication."""
        return [
            route("/metrics", GET=self.metrics),
            route("/_standin/faults", GET=self.faults, POST=self.set_faults),
            route("/_standin/state", GET=self.state),
            route("/_standin/torrents/{hash}", POST=self.spoil_torrent),
        ]

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def config(self, _request: Request) -> Response:
        config = self._core.config
        beat_ms = int(config.tick_s * 1000)
        return JSONResponse(
            {
                "auth": {"method": "none" if config.api_key is None else "api_key"},
                "server": {"host": config.host, "port": config.port},
                "database": {"path": str(config.database or ":memory:")},
                "torrent_client": {
                    "backend": config.client,
                    config.client: {"download_path": config.shown_path},
                },
                "textbrain": {"mode": "dumbonly", "auto_approve_threshold": 0.85},
                "orchestrator": {
                    "enabled": config.orchestrator,
                    "acquisition_poll_interval_ms": beat_ms,
                    "download_poll_interval_ms": beat_ms,
                    "auto_approve_threshold": 0.85,
                    "max_concurrent_downloads": config.max_concurrent_downloads,
                },
            }
        )

    async def audit(self, request: Request) -> Response:
        limit = min(max(integer(request, "limit", 100), 1), _LIMIT_MAX)
        offset = max(integer(request, "offset", 0), 0)
        query = request.query_params
        names = ("ticket_id", "event_type", "user_id")
        events = self._core.audit.query(
            equal={name: query[name] for name in names if name in query},
            since=_moment(query.get("from")),
            until=_moment(query.get("to")),
        )
        return JSONResponse(
            {
                "events": events[offset : offset + limit],
                "total": len(events),
                "limit": limit,
                "offset": offset,
            }
        )

    async def no_upgrade(self, _request: Request) -> Response:
        raise refusal(400, "Connection header did not include 'upgrade'")

    async def firehose(self, websocket: WebSocket) -> None:
        """Send every broadcast until the client disconnects; ignore what it sends."""
        with self._core.hub.subscription() as queue:
            await websocket.accept()
            sending = asyncio.create_task(_send_all(websocket, queue))
            try:
                while (await websocket.receive())["type"] != "websocket.disconnect":
                    continue
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def metrics(self, _request: Request) -> Response:
        counts = self._core.tickets.counts()
        pipeline, hub = self._engine.pipeline, self._core.hub
        lines = [
            "# TYPE quentin_tickets_by_state gauge",
            *(
                f'quentin_tickets_by_state{{state="{kind}"}} {counts.get(kind, 0)}'
                for kind in states.STATE_TYPES
            ),
            f"quentin_orchestrator_running {int(bool(self._engine.status()['running']))}",
            f"quentin_downloads_active {self._engine.downloads.active}",
            *pool_lines("quentin_conversion_pool", pipeline.conversion),
            *pool_lines("quentin_placement_pool", pipeline.placement),
            f"quentin_ws_connections_active {hub.clients}",
            f"quentin_ws_lag_events_total {hub.lag_events}",
        ]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def faults(self, _request: Request) -> Response:
        return JSONResponse(self._core.faults.json())

    async def set_faults(self, request: Request) -> Response:
        """Set the fields of `Faults` that the JSON names; 422 with the reason if one is invalid."""
        try:
            changes = await request.json()
            self._core.faults.update(dict(changes))
        except (TypeError, ValueError) as exc:
            return JSONResponse({"error": str(exc)}, 422)
        return JSONResponse(self._core.faults.json())

    async def spoil_torrent(self, request: Request) -> Response:
        """Let the client lose a torrent (`{"do": "forget"}`) or put it into error (`break`)."""
        info_hash: str = request.path_params["hash"]
        torrents = self._core.torrents
        try:
            action = {"forget": torrents.forget, "break": torrents.break_down}[
                dict(await request.json())["do"]
            ]
        except (KeyError, TypeError, ValueError):
            return JSONResponse({"error": 'want {"do": "forget"} or {"do": "break"}'}, 422)
        try:
            action(info_hash)
        except KeyError:
            return JSONResponse({"error": f"no such torrent: {info_hash}"}, 404)
        return JSONResponse({"hash": info_hash})

    async def state(self, _request: Request) -> Response:
        """Counters, so that a test can observe a stand-in in another process."""
        return JSONResponse(
            {
                "requests": dict(self._core.requests),
                "searches": self._core.searches,
                "tickets_by_state": {
                    kind: count for kind, count in self._core.tickets.counts().items() if count
                },
                "torrents": len(self._core.torrents.every()),
                "ws_clients": self._core.hub.clients,
                "ws_lag_events": self._core.hub.lag_events,
            }
        )


async def _send_all(websocket: WebSocket, queue: asyncio.Queue[str]) -> None:
    try:
        while True:
            await websocket.send_text(await queue.get())
    except WebSocketDisconnect:
        return  # the receiving loop gets the disconnect too


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise refusal(400, f"Failed to deserialize query string: {exc}") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
