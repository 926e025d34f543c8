"""The outbox rows of events that are not moves of an item; a trigger writes those of the moves.

`shared.bus.relay` publishes each row after the commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from shared.db.pool import Connection
from shared.events import Event, RequestRejected

_INSERT = """
INSERT INTO events (kind, item_id, request_id, actor, data)
SELECT e.kind, e.item_id, e.request_id, $5, e.data
  FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])
       WITH ORDINALITY AS e (kind, item_id, request_id, data, place)
 ORDER BY e.place
"""

# The index of rejections is by the request's id.
_REJECT_ONCE = """
INSERT INTO events (id, kind, actor, data)
SELECT $1, $2, $3, $4::jsonb
 WHERE NOT EXISTS (SELECT 1 FROM events
                    WHERE kind = 'request.rejected' AND data ->> 'request_id' = $5 AND id = $1)
"""


async def record_once(
    connection: Connection, event: RequestRejected, *, event_id: uuid.UUID, actor: str
) -> None:
    """Write the event under this id, unless it is there already."""
    await connection.execute(
        _REJECT_ONCE, event_id, event.kind, actor, event.data(), event.request_id
    )


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
