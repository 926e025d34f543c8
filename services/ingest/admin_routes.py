"""The routes of an administrator: scans, statistics, failed items, decisions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.ingest.auth import Keys
from services.ingest.blocked_sources import BlockedSources
from services.ingest.decisions import Decisions
from services.ingest.items import Items
from services.ingest.parameters import PAGING, json_body, paging, route, track_filter
from services.ingest.presence_problems import PresenceProblems
from services.ingest.refused_downloads import RefusedDownloads
from services.ingest.scans import Scans
from services.ingest.stats import Statistics

BASE = "/v1/download/admin"


class AdminRoutes:
    """The handlers of the routes that only an administrator may use."""

    def __init__(
        self,
        *,
        keys: Keys,
        items: Items,
        decisions: Decisions,
        scans: Scans,
        statistics: Statistics,
        problems: PresenceProblems,
        refused: RefusedDownloads,
        blocked: BlockedSources,
    ) -> None:
        self._keys = keys
        self._items = items
        self._decisions = decisions
        self._scans = scans
        self._statistics = statistics
        self._problems = problems
        self._refused = refused
        self._blocked = blocked

    def routes(self) -> list[Route]:
        """The routes; `:rest` is registered in `parameters`."""
        return [
            route(f"{BASE}/scan", self.scan, method="POST"),
            route(f"{BASE}/queue-all", self.queue_all, method="POST"),
            route(f"{BASE}/scan/{{scan_id:rest}}", self.scan_report),
            route(f"{BASE}/scan/{{scan_id:rest}}", self.cancel_scan, method="DELETE"),
            route(f"{BASE}/stats", self.stats),
            route(f"{BASE}/failed", self.failed, takes=PAGING),
            route(f"{BASE}/attention", self.attention, takes=PAGING),
            route(f"{BASE}/presence-problems", self.presence_problems, takes=(*PAGING, "kind")),
            route(f"{BASE}/refused", self.refused, takes=(*PAGING, "track_id")),
            route(f"{BASE}/refused/{{file_id:rest}}/release", self.release, method="POST"),
            route(f"{BASE}/refused/{{file_id:rest}}", self.discard, method="DELETE"),
            route(f"{BASE}/blocked", self.blocked, takes=(*PAGING, "track_id")),
            route(f"{BASE}/blocked/lift", self.lift, method="POST"),
            route(f"{BASE}/items/{{item_id:rest}}/approve", self.approve, method="POST"),
            route(f"{BASE}/items/{{item_id:rest}}/reject", self.reject, method="POST"),
        ]

    async def scan(self, request: Request) -> Response:
        return await self._start_scan(request, queue=False)

    async def queue_all(self, request: Request) -> Response:
        return await self._start_scan(request, queue=True)

    async def _start_scan(self, request: Request, *, queue: bool) -> Response:
        principal = self._keys.admin(request)
        body = await json_body(request)
        scan_id = await self._scans.start(body, queue=queue, user_id=principal.name)
        return JSONResponse(
            {"scan_id": scan_id},
            status_code=202,
            headers={"Location": f"{BASE}/scan/{scan_id}"},
        )

    async def scan_report(self, request: Request) -> Response:
        self._keys.admin(request)
        return JSONResponse(await self._scans.report(request.path_params["scan_id"]))

    async def cancel_scan(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        scan_id = request.path_params["scan_id"]
        return JSONResponse(await self._scans.cancel(scan_id, user_id=principal.name))

    async def stats(self, request: Request) -> Response:
        self._keys.admin(request)
        return JSONResponse(await self._statistics.read())

    async def failed(self, request: Request) -> Response:
        self._keys.admin(request)
        limit, offset = paging(request)
        page = await self._items.failed(limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def attention(self, request: Request) -> Response:
        self._keys.admin(request)
        limit, offset = paging(request)
        page = await self._items.attention(limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def presence_problems(self, request: Request) -> Response:
        self._keys.admin(request)
        limit, offset = paging(request)
        kind = request.query_params.get("kind")
        page = await self._problems.page(kind, limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def refused(self, request: Request) -> Response:
        self._keys.admin(request)
        return await _of_track(request, self._refused)

    async def release(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        file_id = request.path_params["file_id"]
        return await self._decided(await self._refused.release(file_id, by=principal.name))

    async def discard(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        file_id = request.path_params["file_id"]
        await self._refused.discard(file_id, by=principal.name)
        return JSONResponse({"discarded": file_id})

    async def blocked(self, request: Request) -> Response:
        self._keys.admin(request)
        return await _of_track(request, self._blocked)

    async def lift(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        body = await json_body(request)
        lifted = await self._blocked.lift(
            body.get("source"), body.get("track_id"), by=principal.name
        )
        return JSONResponse({"lifted": lifted.track_ids, "failed": lifted.failed})

    async def approve(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        item_id = request.path_params["item_id"]
        file = (await json_body(request)).get("file")
        await self._decisions.approve(item_id, file, by=principal.name)
        return await self._decided(item_id)

    async def reject(self, request: Request) -> Response:
        principal = self._keys.admin(request)
        item_id = request.path_params["item_id"]
        await self._decisions.reject(item_id, by=principal.name)
        return await self._decided(item_id)

    async def _decided(self, item_id: str) -> Response:
        [item] = await self._items.by_ids([item_id])
        return JSONResponse({"item": item})


async def _of_track(request: Request, source: BlockedSources | RefusedDownloads) -> Response:
    """A page of what there is for one track, or for all."""
    limit, offset = paging(request)
    page = await source.page(track_filter(request), limit=limit, offset=offset)
    return JSONResponse(page.to_json())
