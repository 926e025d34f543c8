"""The outbox rows of events that are not moves of an item; a trigger writes those of the moves.

`shared.bus.relay` publishes each row after the commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.db.pool import Connection
from shared.events import Event

_INSERT = """
INSERT INTO events (kind, item_id, request_id, actor, data)
SELECT e.kind, e.item_id, e.request_id, $5, e.data
  FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])
       WITH ORDINALITY AS e (kind, item_id, request_id, data, place)
 ORDER BY e.place
"""


async def record_events(connection: Connection, events: Sequence[Event], *, actor: str) -> None:
    """Write events in their order, in the transaction of the changes that they report."""
    await connection.execute(
        _INSERT,
        [event.kind for event in events],
        [event.outbox_item for event in events],
        [event.outbox_request for event in events],
        [event.data() for event in events],
        actor,
    )
