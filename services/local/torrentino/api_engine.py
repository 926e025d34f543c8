"""The handlers of `/orchestrator` and `/pipeline` (reference, 1.2 and 1.3)."""

from __future__ import annotations

import json
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.local.torrentino.bodies import error, required
from services.local.torrentino.convert import Order, SourceFile, is_known
from services.local.torrentino.core import Core
from services.local.torrentino.engine import Engine
from services.local.torrentino.pipeline import JobExists
from services.local.torrentino.pool import Pool
from services.local.torrentino.routing import api_route
from services.local.torrentino.schema import ProcessBody
from services.local.torrentino.tickets import Ticket

_UNAVAILABLE = "Orchestrator not available. Check that searcher and torrent_client are configured."
_NAMED_PHASES = frozenset({"converting", "placing", "completed", "failed"})


class EngineApi:
    """The routes that show and switch the orchestrator and the pipeline."""

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
            api_route("/pipeline/process/{id}", POST=self.process),
        ]

    async def orchestrator(self, _request: Request) -> Response:
        return JSONResponse(self._engine.status())

    async def start(self, _request: Request) -> Response:
        return self._switch(on=True, word="started")

    async def stop(self, _request: Request) -> Response:
        return self._switch(on=False, word="stopped")

    def _switch(self, *, on: bool, word: Literal["started", "stopped"]) -> Response:
        if not self._engine.available:
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
                "message": "The stand-in copies; only /pipeline/process asks for ffmpeg",
            }
        )

    async def process(self, request: Request) -> Response:
        """Convert and place files that the body names, for a ticket in any state."""
        ticket_id: str = request.path_params["id"]
        body = await required(request, ProcessBody)
        ticket = self._core.tickets.get(ticket_id)
        output_format = body.output_format or "ogg_vorbis"
        if ticket is None:
            return _submitted(404, f"Ticket not found: {ticket_id}", ticket_id)
        if not is_known(output_format):
            return _submitted(400, f"Unsupported output format: {output_format}", ticket_id)
        order = Order(
            files=tuple(SourceFile(**file.model_dump()) for file in body.source_files),
            dest_dir=body.dest_dir,
            output_format=output_format,
            bitrate_kbps=320 if body.bitrate_kbps is None else body.bitrate_kbps,
        )
        try:
            self._engine.pipeline.submit_order(ticket, order)
        except JobExists:
            text = f"Failed to submit job: Job already exists for ticket: {ticket_id}"
            return _submitted(500, text, ticket_id)
        return _submitted(202, "Job submitted to pipeline", ticket_id)


def _submitted(status: int, message: str, ticket_id: str) -> Response:
    shown = {"success": status == 202, "message": message, "ticket_id": ticket_id}
    return JSONResponse(shown, status)


def _progress(ticket: Ticket) -> dict[str, object]:
    kind, state = ticket.kind, ticket.state
    shown: dict[str, object] = {"ticket_id": ticket.id, "phase": kind}
    if kind not in _NAMED_PHASES:
        shown["phase"] = _debug_dump(ticket)
    elif kind == "converting":
        shown["progress"] = _files(
            state.get("current_idx"), state.get("total", 1), state.get("current_name")
        )
    elif kind == "placing":
        shown["progress"] = _files(state.get("files_placed"), state.get("total_files"), "")
    elif kind == "failed":
        shown["error"] = state.get("error")
    return shown


def _files(current: object, total: object, name: object) -> dict[str, object]:
    """The percentage counts files; it ignores how far ffmpeg is within one."""
    percent = 0.0
    if isinstance(current, int) and isinstance(total, int) and total > 0:
        percent = 100.0 * current / total
    return {
        "current_file": current,
        "total_files": total,
        "current_file_name": name,
        "percent": percent,
    }


def _debug_dump(ticket: Ticket) -> str:
    """The lower-cased Rust dump, a flaw of the real server; clients must not parse it."""
    fields = {name: value for name, value in ticket.state.items() if name != "type"}
    name = ticket.kind.replace("_", "")
    if not fields:
        return name
    inner = ", ".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())
    return f"{name} {{ {inner} }}".lower()


def pool_lines(prefix: str, pool: Pool) -> list[str]:
    """One pool's gauges."""
    return [f"{prefix}_active {pool.active}", f"{prefix}_queued {pool.queued}"]
