"""What the bridge has taken over from the catalog server, for the statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.db.pool import Connection
from shared.states import ServerRequestState

_COUNTS = "SELECT state, count(*) AS count FROM bridge_requests GROUP BY state"

# A request that ended well has no problem; one that was deleted without its receipt has.
_PROBLEMS = """
SELECT remote_id, kind, content_id, content_name, user_id, state, problem
  FROM bridge_requests WHERE problem IS NOT NULL AND state <> ALL($1)
 ORDER BY requested_at, remote_id LIMIT $2
"""

_SERVER = "SELECT problems FROM bridge_server"

_MOST = 20
_OVER = [ServerRequestState.ENDED.value, ServerRequestState.WITHDRAWN.value]


@dataclass(frozen=True, kw_only=True)
class ServerRequests:
    """The requests by state, those that wait with their reason, and what does not work."""

    by_state: dict[str, int]
    waiting: list[dict[str, Any]]
    # By what does not work: requests, receipt, availability, playable.
    problems: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"requests": self.by_state, "waiting": self.waiting, "problems": self.problems}


async def read(connection: Connection) -> ServerRequests:
    """Read all of it."""
    counts = await connection.fetch(_COUNTS)
    waiting = await connection.fetch(_PROBLEMS, _OVER, _MOST)
    problems = await connection.fetchval(_SERVER)
    found = {row["state"]: row["count"] for row in counts}
    return ServerRequests(
        by_state={state.value: found.get(state.value, 0) for state in ServerRequestState},
        waiting=[dict(row) for row in waiting],
        problems=problems or {},
    )
