"""The routes of a user: requests, their items, and what may be done with one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.ingest.auth import Keys, NotAllowed
from services.ingest.items import Items
from services.ingest.limits import Limits
from services.ingest.orders import Order
from services.ingest.parameters import PAGING, flag, paging, route
from services.ingest.retries import Retries
from services.ingest.service import Requests
from services.ingest.withdrawals import Withdrawals

BASE = "/v1/download"


class UserRoutes:
    """The handlers of the routes that every caller may use."""

    def __init__(
        self,
        *,
        keys: Keys,
        requests: Requests,
        items: Items,
        withdrawals: Withdrawals,
        retries: Retries,
        limits: Limits,
    ) -> None:
        self._keys = keys
        self._requests = requests
        self._items = items
        self._withdrawals = withdrawals
        self._retries = retries
        self._limits = limits

    def routes(self) -> list[Route]:
        """The routes; `:rest` is registered in `parameters`."""
        return [
            route(f"{BASE}/track/{{track_id:rest}}", self.track, method="POST"),
            route(f"{BASE}/album/{{album_id:rest}}", self.album, method="POST"),
            route(f"{BASE}/my-requests", self.my_requests, takes=PAGING),
            route(f"{BASE}/limits", self.limits),
            route(f"{BASE}/items/{{item_id:rest}}/retry", self.retry, method="POST"),
            route(f"{BASE}/items/{{item_id:rest}}", self.item),
            route(
                f"{BASE}/items/{{item_id:rest}}",
                self.withdraw,
                method="DELETE",
                takes=["for_all"],
            ),
        ]

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
            headers={"Location": f"{BASE}/items/{item['id']}"},
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
                "broken": list(accepted.broken),
                "items": await self._items.by_ids(ids),
            },
            status_code=202,
        )

    async def my_requests(self, request: Request) -> Response:
        user_id = self._keys.principal(request).name
        limit, offset = paging(request)
        page = await self._items.mine(user_id, limit=limit, offset=offset)
        return JSONResponse(page.to_json())

    async def limits(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        return JSONResponse(await self._limits.report(principal.caller))

    async def item(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        detail = await self._items.detail(
            request.path_params["item_id"], for_user=principal.sees_only
        )
        return JSONResponse(detail)

    async def withdraw(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        administrator = principal.sees_only is None
        for_all = flag(request, "for_all")
        if for_all and not administrator:
            raise NotAllowed("only an administrator cancels for others; leave for_all out")
        item_id = request.path_params["item_id"]
        others_wait = await self._withdrawals.item(
            item_id, user_id=principal.name, administrator=administrator, for_all=for_all
        )
        [item] = await self._items.by_ids([item_id])
        return JSONResponse({"item": item, "others_wait": others_wait})

    async def retry(self, request: Request) -> Response:
        principal = self._keys.principal(request)
        item_id = request.path_params["item_id"]
        await self._retries.item(item_id, caller=principal.caller)
        [item] = await self._items.by_ids([item_id])
        return JSONResponse(
            {"item": item}, status_code=202, headers={"Location": f"{BASE}/items/{item_id}"}
        )
