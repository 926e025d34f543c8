"""Withdrawing requests. The last requester's withdrawal ends the work and its ticket.

Rows are locked in the order that everybody keeps: items, their requesters, album requests.
"""

from __future__ import annotations

import asyncio

import structlog

from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db import download_moves, moves
from shared.db.items import settle_albums
from shared.db.pool import Connection, Database
from shared.errors import Conflict, Unknown
from shared.states import ACTIVE_STATUSES, Status
from shared.untrusted import token

log = structlog.get_logger()

ACTOR = "ingest"

# A withdrawal may overtake its request: the request then finds this row, and takes itself for a
# repetition of what was done before.
_FORESTALL = """
INSERT INTO requests (id, user_id, kind, content_id, priority, source, charged, settled_at)
VALUES ($1, $2, 'track', '', 3, 'withdrawn', false, now())
ON CONFLICT (id) DO NOTHING
"""

_LOCK_OF_REQUEST = """
SELECT q.id FROM queue_items q
 WHERE q.status IN ('PENDING', 'DOWNLOADING')
   AND q.id IN (SELECT item_id FROM item_requesters WHERE request_id = $1)
 ORDER BY q.track_id FOR NO KEY UPDATE
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

_LOCK_ITEM = "SELECT id FROM queue_items WHERE id = $1 FOR NO KEY UPDATE"

# Read when the lock is held; whoever has withdrawn is still known here.
_ITEM = """
SELECT q.status, EXISTS (SELECT 1 FROM item_requesters r
                          WHERE r.item_id = q.id AND r.user_id = $2) AS asked
  FROM queue_items q WHERE q.id = $1
"""

_WITHDRAW_FROM_ITEM = """
UPDATE item_requesters SET withdrawn_at = now()
 WHERE item_id = $1 AND user_id = $2 AND withdrawn_at IS NULL
"""

# The row lock comes before the count, so that two last requesters cannot both see the other.
_LOCK = """
SELECT id FROM queue_items
 WHERE id = ANY($1) AND status IN ('PENDING', 'DOWNLOADING') ORDER BY track_id FOR NO KEY UPDATE
"""

_BY_ALL = "withdrawn by everybody who had asked for it"
_BY_ADMIN = "cancelled by an administrator"


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
            await connection.fetch(_LOCK_OF_REQUEST, request_id)
            rows = await connection.fetch(_WITHDRAW, request_id, user_id)
            await connection.execute(_SETTLE, request_id, user_id)
            reached("withdraw.noted")
            ended = await _end(connection, [row["item_id"] for row in rows], for_all=False)
        log.info("request_withdrawn", request_id=request_id, items=len(rows), ended=ended)
        await self._tell(ended)
        return ended

    async def item(
        self, item_id: str, *, user_id: str, administrator: bool, for_all: bool = False
    ) -> bool:
        """Withdraw what this user asked for of one item; True while others still wait for it.

        An administrator who never asked for it, or says `for_all`, cancels it for everybody: the
        requesters stay, and see why it failed. Doing it again changes nothing.

        Raises:
            InvalidRequest, Unknown: there is none, or this user has not asked for it.
            Conflict: it is COMPLETED.
        """
        token(item_id, what="item id")
        assert administrator or not for_all, "only an administrator cancels for others"
        async with self._database.transaction() as connection:
            await connection.fetch(_LOCK_ITEM, item_id)
            row = await connection.fetchrow(_ITEM, item_id, user_id)
            if row is None or not (row["asked"] or administrator):
                raise Unknown(f"there is no item {item_id[:80]!r} among your requests")
            if row["status"] == Status.COMPLETED:
                raise Conflict("the item is COMPLETED: its file is in place, nothing is withdrawn")
            await connection.execute(_WITHDRAW_FROM_ITEM, item_id, user_id)
            for_all = for_all or not row["asked"]
            ended = await _end(connection, [item_id], for_all=for_all)
            # An album without this track may be complete now.
            await settle_albums(connection, [item_id], actor=ACTOR)
        log.info("item_withdrawn", item_id=item_id, user_id=user_id, for_all=for_all, ended=ended)
        await self._tell(ended)
        return not ended and row["status"] in ACTIVE_STATUSES

    async def _tell(self, ended: int) -> None:
        reached("withdraw.committed")
        self._relay_wake.set()
        if ended:
            await self._bus.wake("poll")


async def _end(connection: Connection, item_ids: list[str], *, for_all: bool) -> int:
    """End those of these items that nobody waits for (`for_all`: all) with their tickets."""
    await connection.fetch(_LOCK, item_ids)
    reason = _BY_ADMIN if for_all else _BY_ALL
    ended = await moves.cancel(connection, item_ids, for_all=for_all, reason=reason, actor=ACTOR)
    reached("withdraw.ended")
    tickets = [row["ticket_id"] for row in ended if row["ticket_id"]]
    await download_moves.withdraw_unwanted(connection, tickets)
    await settle_albums(connection, [row["id"] for row in ended], actor=ACTOR)
    return len(ended)
