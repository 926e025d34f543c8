"""The handlers of `/tickets` (reference, 1.1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.local.torrentino import states
from services.local.torrentino.bodies import error, integer, optional, required
from services.local.torrentino.core import Core
from services.local.torrentino.routing import api_route
from services.local.torrentino.schema import ApproveBody, CreateTicket, ReasonBody
from services.local.torrentino.states import State
from services.local.torrentino.tickets import Ticket

_LIMIT_MAX = 1000
_UNCONFIRMED = (
    "Hard delete requires confirmation. Add ?confirm=true to permanently delete this ticket."
)


class TicketApi:
    """Every route under `/tickets`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        return [
            api_route("/tickets", GET=self.page, POST=self.create),
            api_route("/tickets/{id}", GET=self.get, DELETE=self.cancel),
            api_route("/tickets/{id}/delete", POST=self.delete),
            api_route("/tickets/{id}/retry", POST=self.retry),
            api_route("/tickets/{id}/approve", POST=self.approve),
            api_route("/tickets/{id}/reject", POST=self.reject),
        ]

    async def create(self, request: Request) -> Response:
        body = await required(request, CreateTicket)
        shown = body.model_dump(mode="json", exclude_none=True)
        ticket = self._core.tickets.create(
            created_by=self._core.user,
            priority=body.priority or 0,
            query_context=shown["query_context"],
            dest_path=body.dest_path,
            output_constraints=shown.get("output_constraints"),
        )
        return JSONResponse(ticket.json(), 201)

    async def page(self, request: Request) -> Response:
        limit = min(max(integer(request, "limit", 100), 1), _LIMIT_MAX)
        offset = max(integer(request, "offset", 0), 0)
        kind = request.query_params.get("state")
        creator = request.query_params.get("created_by")
        tickets = self._core.tickets
        found = tickets.every() if kind is None else tickets.of_kind(kind)
        if creator is not None:
            found = [ticket for ticket in found if ticket.created_by == creator]
        return JSONResponse(
            {
                "tickets": [ticket.json() for ticket in found[offset : offset + limit]],
                "total": len(found),
                "limit": limit,
                "offset": offset,
            }
        )

    async def get(self, request: Request) -> Response:
        return JSONResponse(self._ticket(request).json())

    async def cancel(self, request: Request) -> Response:
        body = await optional(request, ReasonBody)
        ticket = self._ticket(request)
        if ticket.kind in states.TERMINAL:
            raise _conflict("cancel", ticket)
        return self._move(ticket, states.cancelled(by=self._core.user, reason=body.reason))

    async def delete(self, request: Request) -> Response:
        if request.query_params.get("confirm") != "true":
            raise error(400, _UNCONFIRMED)
        ticket = self._ticket(request)
        self._core.tickets.delete(ticket, by=self._core.user)
        return JSONResponse(ticket.json())

    async def retry(self, request: Request) -> Response:
        ticket = self._ticket(request)
        if ticket.kind not in states.RETRYABLE:
            raise _conflict("retry", ticket)
        return self._move(ticket, states.PENDING)

    async def approve(self, request: Request) -> Response:
        body = await optional(request, ApproveBody)
        ticket = self._ticket(request)
        if ticket.kind != "needs_approval":
            raise _conflict("approve", ticket)
        shown = ticket.state.get("candidates")
        summaries = shown if isinstance(shown, list) else []
        chosen = body.candidate_idx or 0
        if chosen >= len(summaries):
            text = f"Invalid candidate index: {chosen} (only {len(summaries)} candidates available)"
            raise error(400, text)
        state = states.approved(summaries=summaries, chosen=chosen, by=self._core.user)
        return self._move(ticket, state)

    async def reject(self, request: Request) -> Response:
        body = await optional(request, ReasonBody)
        ticket = self._ticket(request)
        if ticket.kind != "needs_approval":
            raise _conflict("reject", ticket)
        return self._move(ticket, states.rejected(by=self._core.user, reason=body.reason))

    def _ticket(self, request: Request) -> Ticket:
        ticket_id: str = request.path_params["id"]
        ticket = self._core.tickets.get(ticket_id)
        if ticket is None:
            raise error(404, f"Ticket not found: {ticket_id}")
        return ticket

    def _move(self, ticket: Ticket, state: State) -> Response:
        self._core.tickets.put(ticket.id, state)
        return JSONResponse(ticket.json())


def _conflict(action: str, ticket: Ticket) -> Exception:
    return error(409, f"Cannot {action} ticket: current state is {ticket.kind}")
