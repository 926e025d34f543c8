"""Events that are not moves of an item; those are written by the database itself.

Every row is also an outbox row: `shared.bus.relay` publishes it after the commit.
"""

from __future__ import annotations

from shared.db.items import Json
from shared.db.pool import Connection

_INSERT = """
INSERT INTO events (kind, item_id, request_id, actor, data) VALUES ($1, $2, $3, $4, $5)
"""


async def record_event(
    connection: Connection,
    kind: str,
    data: Json,
    *,
    actor: str,
    item_id: str | None = None,
    request_id: str | None = None,
) -> None:
    """Write an event beside the change that it tells of, in the same transaction."""
    await connection.execute(_INSERT, kind, item_id, request_id, actor, data)
