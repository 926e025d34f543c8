"""The audit log, newest first; it keeps a fixed number of events."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

from services.local.torrentino.database import Database
from services.local.torrentino.timestamps import now_ns, offset_form

_KEPT = 100_000


class Audit:
    """The log of all events. The real one is written a little later and may lose events."""

    def __init__(self, database: Database) -> None:
        self._events: deque[dict[str, Any]] = deque(database.events(limit=_KEPT), maxlen=_KEPT)
        self._unsaved: list[dict[str, Any]] = []
        self._last_id = self._events[-1]["id"] if self._events else 0

    def emit(
        self, event_type: str, *, ticket_id: str | None, user_id: str | None, **data: object
    ) -> None:
        """Record one event; `data` is stored beside its type and ticket id."""
        self._last_id += 1
        event = {
            "id": self._last_id,
            "timestamp": offset_form(now_ns()),
            "event_type": event_type,
            "ticket_id": ticket_id,
            "user_id": user_id,
            "data": {"type": event_type, "ticket_id": ticket_id, **data},
        }
        self._events.append(event)
        self._unsaved.append(event)

    def drain(self) -> list[dict[str, Any]]:
        """The events since the last call, for saving."""
        unsaved, self._unsaved = self._unsaved, []
        return unsaved

    def query(
        self,
        *,
        equal: dict[str, str],
        since: datetime | None,
        until: datetime | None,
    ) -> list[dict[str, Any]]:
        """Events whose fields are as in `equal`, between the two times, newest first."""
        return [
            event
            for event in reversed(self._events)
            if all(event[name] == value for name, value in equal.items())
            and _within(event["timestamp"], since, until)
        ]


def _within(timestamp: str, since: datetime | None, until: datetime | None) -> bool:
    if since is None and until is None:
        return True
    moment = datetime.fromisoformat(timestamp)
    return (since is None or moment >= since) and (until is None or moment <= until)
