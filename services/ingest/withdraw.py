"""Withdrawing a request. The last requester's withdrawal ends the work and its ticket."""

from __future__ import annotations

import asyncio

import structlog

from shared.bus.nats import Bus
from shared.db.items import settle_albums
from shared.db.pool import Connection, Database
from shared.errors import ErrorType
from shared.states import STATUS_OF, Stage, sources

log = structlog.get_logger()

ACTOR = "ingest"

# A withdrawal may overtake its request: the request then finds this row, and takes itself for a
# repetition of what was done before.
_FORESTALL = """
INSERT INTO requests (id, user_id, kind, content_id, priority, source, charged, settled_at)
VALUES ($1, $2, 'track', '', 3, 'withdrawn', false, now())
ON CONFLICT (id) DO NOTHING
"""

_WITHDRAW = """
UPDATE item_requesters SET withdrawn_at = now()
 WHERE request_id = $1 AND ($2::text IS NULL OR user_id = $2) AND withdrawn_at IS NULL
RETURNING item_id
"""

# Who has withdrawn an album is not told that it is complete.
_SETTLE = """
UPDATE requests SET settled_at = now()
 WHERE id = $1 AND ($2::text IS NULL OR user_id = $2) AND settled_at IS NULL
"""

# The row lock comes before the count, so that two last requesters cannot both see the other.
_LOCK = """
SELECT id FROM queue_items
 WHERE id = ANY($1) AND status IN ('PENDING', 'DOWNLOADING') ORDER BY track_id FOR NO KEY UPDATE
"""

_CANCEL = """
UPDATE queue_items q
   SET stage = $2, status = $3, completed_at = extract(epoch FROM now())::bigint,
       error_type = $4, error_message = $5, reason = $5, actor = $6, error_evidence = NULL,
       lease_until = NULL, lease_owner = NULL, fence = nextval('fence_seq'), updated_at = now()
 WHERE q.id = ANY($1) AND q.stage = ANY($7)
   AND NOT EXISTS (SELECT 1 FROM item_requesters r
                    WHERE r.item_id = q.id AND r.withdrawn_at IS NULL)
RETURNING q.id, q.ticket_id
"""

# A ticket ends when nobody waits for it any more; the poller cancels it until it stays cancelled.
_WITHDRAW_TICKETS = """
UPDATE tickets t SET state = 'withdrawing', withdrawn_at = NULL, next_poll_at = now()
 WHERE t.id = ANY($1) AND t.state IN ('intent', 'open')
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id AND q.status IN ('PENDING', 'DOWNLOADING'))
"""


class Withdrawals:
    """Takes requests back."""

    def __init__(self, *, database: Database, bus: Bus, relay_wake: asyncio.Event) -> None:
        self._database = database
        self._bus = bus
        self._relay_wake = relay_wake

    async def request(self, request_id: str, *, user_id: str | None) -> int:
        """Withdraw everything that a request asked for; returns how many items that ended.

        `user_id` None is the catalog server itself, which may withdraw anybody's. A request that
        is another user's or withdrawn already changes nothing; one that is still to come will
        have no effect.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_FORESTALL, request_id, user_id)
            rows = await connection.fetch(_WITHDRAW, request_id, user_id)
            await connection.execute(_SETTLE, request_id, user_id)
            ended = await self._end(connection, [row["item_id"] for row in rows])
        log.info("request_withdrawn", request_id=request_id, items=len(rows), ended=ended)
        if ended:
            self._relay_wake.set()
            await self._bus.wake("poll")
        return ended

    async def _end(self, connection: Connection, item_ids: list[str]) -> int:
        await connection.fetch(_LOCK, item_ids)
        ended = await connection.fetch(
            _CANCEL,
            item_ids,
            Stage.FAILED.value,
            STATUS_OF[Stage.FAILED].value,
            ErrorType.CANCELLED.value,
            "withdrawn by everybody who had asked for it",
            ACTOR,
            sources(Stage.FAILED),
        )
        tickets = [row["ticket_id"] for row in ended if row["ticket_id"]]
        await connection.execute(_WITHDRAW_TICKETS, tickets)
        await settle_albums(connection, [row["id"] for row in ended], actor=ACTOR)
        return len(ended)
