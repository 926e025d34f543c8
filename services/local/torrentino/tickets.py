"""The tickets: in memory, copied to SQLite, with a message and an audit event for every change.

As in the real server, a state is overwritten without comparison, and nothing is deduplicated.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.local.torrentino import states
from services.local.torrentino.audit import Audit
from services.local.torrentino.database import Database
from services.local.torrentino.hub import Hub
from services.local.torrentino.states import State
from services.local.torrentino.timestamps import now_ns, offset_form


@dataclass(kw_only=True)
class Ticket:
    """One row; the last five fields are internal and not in the API."""

    id: str
    created_at: str
    created_by: str
    state: State
    priority: int
    query_context: dict[str, object]
    dest_path: str
    output_constraints: dict[str, object] | None
    updated_at: str
    created_ns: int
    retry_count: int = 0  # automatic retries; never reset
    content: str | None = None  # the file that an acquisition chose
    titles: list[str] = field(default_factory=list)  # casefolded, for `Faults`
    hands: int = 0  # grows when a test takes the ticket from the engine

    @property
    def kind(self) -> str:
        return states.kind(self.state)

    def json(self) -> dict[str, object]:
        """The ticket as the API shows it."""
        shown: dict[str, object] = {
            "id": self.id,
            "created_at": self.created_at,
            "created_by": self.created_by,
            "state": self.state,
            "priority": self.priority,
            "query_context": self.query_context,
            "dest_path": self.dest_path,
        }
        if self.output_constraints is not None:
            shown["output_constraints"] = self.output_constraints
        shown["updated_at"] = self.updated_at
        return shown


class Tickets:
    """All tickets of one server."""

    def __init__(self, database: Database, hub: Hub, audit: Audit) -> None:
        self._database = database
        self._hub = hub
        self._audit = audit
        self._by_id = {row["id"]: Ticket(**row) for row in database.tickets()}
        self._by_kind: defaultdict[str, set[str]] = defaultdict(set)
        for ticket in self._by_id.values():
            self._by_kind[ticket.kind].add(ticket.id)
        self._dirty: set[str] = set()
        self.last_ns = max((each.created_ns for each in self._by_id.values()), default=0)

    def create(
        self,
        *,
        created_by: str,
        priority: int,
        query_context: dict[str, object],
        dest_path: str,
        output_constraints: dict[str, object] | None,
    ) -> Ticket:
        """Add a pending ticket; `created_at` differs from every other's."""
        self.last_ns = max(now_ns(), self.last_ns + 1)
        moment = offset_form(self.last_ns)
        ticket = Ticket(
            id=str(uuid.uuid4()),
            created_at=moment,
            created_by=created_by,
            state=states.PENDING,
            priority=priority,
            query_context=query_context,
            dest_path=dest_path,
            output_constraints=output_constraints,
            updated_at=moment,
            created_ns=self.last_ns,
        )
        self._by_id[ticket.id] = ticket
        self._by_kind[ticket.kind].add(ticket.id)
        self._audit.emit(
            "ticket_created", ticket_id=ticket.id, user_id=created_by, priority=priority
        )
        self._save(ticket, lazy=False)
        self._announce(ticket)
        return ticket

    def get(self, ticket_id: str) -> Ticket | None:
        return self._by_id.get(ticket_id)

    def put(self, ticket_id: str, state: State, *, announce: bool = True) -> Ticket | None:
        """Overwrite the state, whatever it was; None when the row has been deleted."""
        ticket = self._by_id.get(ticket_id)
        if ticket is None:
            return None
        before, after = ticket.kind, states.kind(state)
        self._by_kind[before].discard(ticket_id)
        self._by_kind[after].add(ticket_id)
        ticket.state = state
        ticket.updated_at = offset_form(now_ns())
        if before != after:
            self._audit_change(ticket, before)
        self._save(ticket, lazy=before == after)
        if announce or before != after:
            self._announce(ticket)
        return ticket

    def delete(self, ticket: Ticket, *, by: str) -> None:
        """Remove the row only; its torrent stays."""
        del self._by_id[ticket.id]
        self._by_kind[ticket.kind].discard(ticket.id)
        self._dirty.discard(ticket.id)
        self._database.delete_ticket(ticket.id)
        self._audit.emit("ticket_deleted", ticket_id=ticket.id, user_id=by)
        self.flush()
        self._hub.broadcast({"type": "ticket_deleted", "ticket_id": ticket.id})

    def every(self) -> list[Ticket]:
        """All tickets, highest priority first, then oldest first."""
        return sorted(self._by_id.values(), key=_rank)

    def of_kind(self, kind: str) -> list[Ticket]:
        """The tickets in one state, in the same order."""
        return sorted((self._by_id[each] for each in self._by_kind[kind]), key=_rank)

    def first_of_kind(self, kind: str) -> Ticket | None:
        """The first of `of_kind`, without sorting."""
        return min((self._by_id[each] for each in self._by_kind[kind]), key=_rank, default=None)

    def count(self, kind: str) -> int:
        return len(self._by_kind[kind])

    def counts(self) -> Mapping[str, int]:
        """The number of tickets in each state, including unknown states."""
        return {kind: len(ids) for kind, ids in self._by_kind.items()}

    def flush(self) -> None:
        """Write the deferred updates to the database."""
        events = self._audit.drain()
        if self._dirty or events:
            self._database.save([vars(self._by_id[each]) for each in self._dirty], events)
            self._dirty.clear()

    def _save(self, ticket: Ticket, *, lazy: bool) -> None:
        self._dirty.add(ticket.id)
        if not lazy:
            self.flush()

    def _announce(self, ticket: Ticket) -> None:
        self._hub.broadcast({"type": "ticket_update", "ticket_id": ticket.id, "state": ticket.kind})

    def _audit_change(self, ticket: Ticket, before: str) -> None:
        if ticket.kind == "cancelled":
            self._audit.emit(
                "ticket_cancelled",
                ticket_id=ticket.id,
                user_id=str(ticket.state.get("cancelled_by")),
                previous_state=before,
                reason=ticket.state.get("reason"),
            )
            return
        self._audit.emit(
            "ticket_state_changed",
            ticket_id=ticket.id,
            user_id=None,
            from_state=before,
            to_state=ticket.kind,
            reason=ticket.state.get("reason") or ticket.state.get("error"),
        )


def _rank(ticket: Ticket) -> tuple[int, int]:
    return -ticket.priority, ticket.created_ns
