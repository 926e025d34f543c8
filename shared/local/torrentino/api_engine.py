"""The handlers of `/orchestrator`, `/pipeline` and `/torrents` (reference, 1.2 to 1.4)."""

from __future__ import annotations

import json
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.local.torrentino.bodies import error, refusal
from shared.local.torrentino.core import Core
from shared.local.torrentino.engine import Engine
from shared.local.torrentino.pipeline import Pool
from shared.local.torrentino.routing import api_route
from shared.local.torrentino.tickets import Ticket

_TORRENT_STATES = frozenset(
    {"downloading", "seeding", "paused", "checking", "queued", "stalled", "error", "unknown"}
)
_UNAVAILABLE = "Orchestrator not available. Check that searcher and torrent_client are configured."
_NAMED_PHASES = frozenset({"converting", "placing", "completed", "failed"})


class EngineApi:
    """The routes that show and switch what runs by itself."""

    def __init__(self, core: Core, engine: Engine) -> None:
        self._core, self._engine = core, engine

    def routes(self) -> list[Route]:
        return [
            api_route("/orchestrator/status", GET=self.orchestrator),
            api_route("/orchestrator/start", POST=self.start),
            api_route("/orchestrator/stop", POST=self.stop),
            api_route("/pipeline/status", GET=self.pipeline),
            api_route("/pipeline/progress/{id}", GET=self.progress),
            api_route("/pipeline/validate", GET=self.validate),
            api_route("/torrents", GET=self.torrents),
            api_route("/torrents/status", GET=self.torrent_client),
            api_route("/torrents/{hash}", GET=self.torrent, DELETE=self.remove_torrent),
        ]

    async def orchestrator(self, _request: Request) -> Response:
        return JSONResponse(self._engine.status())

    async def start(self, _request: Request) -> Response:
        return self._switch(on=True, word="started")

    async def stop(self, _request: Request) -> Response:
        return self._switch(on=False, word="stopped")

    def _switch(self, *, on: bool, word: Literal["started", "stopped"]) -> Response:
        if not self._core.config.orchestrator:
            raise error(503, _UNAVAILABLE)
        self._engine.running = on
        return JSONResponse({"message": f"Orchestrator {word}"})

    async def pipeline(self, _request: Request) -> Response:
        pipeline = self._engine.pipeline
        return JSONResponse(
            {
                "available": True,
                "running": True,
                "message": "Pipeline is running",
                "conversion_pool": pipeline.conversion.json(),
                "placement_pool": pipeline.placement.json(),
                "converting_tickets": sorted(pipeline.converting),
                "placing_tickets": sorted(pipeline.placing),
            }
        )

    async def progress(self, request: Request) -> Response:
        ticket_id: str = request.path_params["id"]
        ticket = self._core.tickets.get(ticket_id)
        if ticket is None:
            text = f"Ticket not found: {ticket_id}"
            return JSONResponse({"ticket_id": ticket_id, "phase": "unknown", "error": text}, 404)
        return JSONResponse(_progress(ticket))

    async def validate(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "valid": True,
                "ffmpeg_available": True,
                "ffprobe_available": True,
                "message": "The stand-in copies and needs no converter",
            }
        )

    async def torrent_client(self, _request: Request) -> Response:
        return JSONResponse({"backend": "qbittorrent", "configured": True})

    async def torrents(self, request: Request) -> Response:
        kind = request.query_params.get("state")
        if kind is not None and kind not in _TORRENT_STATES:
            raise refusal(400, f"Failed to deserialize query string: unknown variant `{kind}`")
        self._core.torrents.advance()
        words = request.query_params.get("search", "").casefold()
        shown = [
            torrent.json()
            for torrent in self._core.torrents.every()
            if kind in {None, torrent.state}
            and words in torrent.offer.name.casefold()
            and not request.query_params.get("category")  # ours have none
        ]
        return JSONResponse({"torrents": shown, "count": len(shown)})

    async def torrent(self, request: Request) -> Response:
        info_hash: str = request.path_params["hash"]
        self._core.torrents.advance()
        torrent = self._core.torrents.get(info_hash)
        if torrent is None:
            raise error(404, f"Torrent not found: {info_hash}")
        return JSONResponse(torrent.json())

    async def remove_torrent(self, request: Request) -> Response:
        """`delete_files` makes no difference: the files are the test's own."""
        info_hash: str = request.path_params["hash"]
        if request.query_params.get("delete_files", "false") not in {"true", "false"}:
            text = "Failed to deserialize query string: provided string was not `true` or `false`"
            raise refusal(400, text)
        if not self._core.torrents.remove(info_hash):
            raise error(404, f"Torrent not found: {info_hash}")
        return JSONResponse({"message": "Torrent removed"})


def _progress(ticket: Ticket) -> dict[str, object]:
    kind, state = ticket.kind, ticket.state
    shown: dict[str, object] = {"ticket_id": ticket.id, "phase": kind}
    if kind not in _NAMED_PHASES:
        shown["phase"] = _debug_dump(ticket)
    elif kind == "converting":
        shown["progress"] = _files(state.get("current_idx"), 1, state.get("current_name"))
    elif kind == "placing":
        shown["progress"] = _files(state.get("files_placed"), state.get("total_files"), "")
    elif kind == "failed":
        shown["error"] = state.get("error")
    return shown


def _files(current: object, total: object, name: object) -> dict[str, object]:
    return {
        "current_file": current,
        "total_files": total,
        "current_file_name": name,
        "percent": 0.0,
    }


def _debug_dump(ticket: Ticket) -> str:
    """The lower-cased Rust dump, a flaw of the real server that nobody should parse."""
    fields = {name: value for name, value in ticket.state.items() if name != "type"}
    name = ticket.kind.replace("_", "")
    if not fields:
        return name
    inner = ", ".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())
    return f"{name} {{ {inner} }}".lower()


def pool_lines(prefix: str, pool: Pool) -> list[str]:
    """One pool's gauges."""
    return [f"{prefix}_active {pool.active}", f"{prefix}_queued {pool.queued}"]
