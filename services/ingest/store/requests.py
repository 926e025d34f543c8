"""Requests, the users that wait for an item by them, and the locks under which that changes.

Row locks are taken in one order everywhere: items by track id, their requesters, album requests.
Each function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from services.ingest.store import ACTOR
from shared.db.pool import Connection, Row
from shared.states import WAITING, Stage, values

# --- limits

LOCK_USER = "SELECT pg_advisory_xact_lock(hashtextextended('pezzottify.user.' || $1, 0))"

_USAGE = """
SELECT (SELECT count(*) FROM requests
         WHERE user_id = $1 AND charged
           AND created_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
           AS requests_today,
       (SELECT count(DISTINCT q.id) FROM item_requesters r JOIN queue_items q ON q.id = r.item_id
         WHERE r.user_id = $1 AND r.withdrawn_at IS NULL
           AND q.status IN ('PENDING', 'DOWNLOADING')) AS in_queue
"""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one user has used of the limits."""

    requests_today: int
    in_queue: int


async def lock_user(connection: Connection, user_id: str) -> None:
    """Serialize the decisions about this user's requests until the transaction ends."""
    await connection.execute(LOCK_USER, user_id)


async def usage(connection: Connection, user_id: str | None) -> Usage:
    """What the user has used, this transaction included."""
    row = await connection.fetchrow(_USAGE, user_id)
    assert row is not None, "a select of counts has a row"
    return Usage(requests_today=row["requests_today"], in_queue=row["in_queue"])


# --- repeated requests

_IS_KNOWN = "SELECT EXISTS (SELECT 1 FROM requests WHERE id = $1)"

_ITEMS = """
SELECT q.track_id, q.id FROM item_requesters r JOIN queue_items q ON q.id = r.item_id
 WHERE r.request_id = $1 ORDER BY q.seq
"""


async def is_known(connection: Connection, request_id: str) -> bool:
    """Whether a request with this id was decided, or withdrawn before it came."""
    return bool(await connection.fetchval(_IS_KNOWN, request_id))


async def items_of(connection: Connection, request_id: str) -> dict[str, str]:
    """The ids of a request's items, by track id."""
    rows = await connection.fetch(_ITEMS, request_id)
    return {row["track_id"]: row["id"] for row in rows}


# --- withdrawals

# A withdrawal may arrive before its request. The request then finds this row and has no effect.
_FORESTALL = """
INSERT INTO requests (id, user_id, kind, content_id, priority, source, charged, settled_at)
VALUES ($1, $2, 'track', '', 3, 'withdrawn', false, now())
ON CONFLICT (id) DO NOTHING
"""

_LOCK_ITEMS_OF_REQUEST = """
SELECT q.id FROM queue_items q
 WHERE q.status IN ('PENDING', 'DOWNLOADING')
   AND q.id IN (SELECT item_id FROM item_requesters WHERE request_id = $1)
 ORDER BY q.track_id FOR NO KEY UPDATE
"""

_WITHDRAW_REQUEST = """
UPDATE item_requesters SET withdrawn_at = now()
 WHERE request_id = $1 AND ($2::text IS NULL OR user_id = $2) AND withdrawn_at IS NULL
RETURNING item_id
"""

# A withdrawn album request gets no `album.completed`.
_SETTLE_REQUEST = """
UPDATE requests SET settled_at = now()
 WHERE id = $1 AND ($2::text IS NULL OR user_id = $2) AND settled_at IS NULL
"""

_LOCK_ITEM = "SELECT id FROM queue_items WHERE id = $1 FOR NO KEY UPDATE"

# `asked` counts withdrawn requests, too.
_REQUESTED_ITEM = """
SELECT q.status, EXISTS (SELECT 1 FROM item_requesters r
                          WHERE r.item_id = q.id AND r.user_id = $2) AS asked
  FROM queue_items q WHERE q.id = $1
"""

_WITHDRAW_FROM_ITEM = """
UPDATE item_requesters SET withdrawn_at = now()
 WHERE item_id = $1 AND user_id = $2 AND withdrawn_at IS NULL
"""

_LOCK_ACTIVE = """
SELECT id FROM queue_items
 WHERE id = ANY($1) AND status IN ('PENDING', 'DOWNLOADING') ORDER BY track_id FOR NO KEY UPDATE
"""


async def withdraw_request(
    connection: Connection, request_id: str, user_id: str | None
) -> list[str]:
    """Withdraw what a request asked for; the ids of the items that it waited for.

    `user_id` None withdraws any user's. A request that comes later has no effect.
    """
    await connection.execute(_FORESTALL, request_id, user_id)
    await connection.fetch(_LOCK_ITEMS_OF_REQUEST, request_id)
    rows = await connection.fetch(_WITHDRAW_REQUEST, request_id, user_id)
    await connection.execute(_SETTLE_REQUEST, request_id, user_id)
    return [row["item_id"] for row in rows]


async def lock_item(connection: Connection, item_id: str) -> None:
    """Lock one item, whatever its stage."""
    await connection.fetch(_LOCK_ITEM, item_id)


async def requested_item(connection: Connection, item_id: str, user_id: str) -> Row | None:
    """The item's `status`, and whether this user ever `asked` for it. Lock the item first."""
    return await connection.fetchrow(_REQUESTED_ITEM, item_id, user_id)


async def withdraw_from_item(connection: Connection, item_id: str, user_id: str) -> None:
    """Withdraw this user's requests for one item."""
    await connection.execute(_WITHDRAW_FROM_ITEM, item_id, user_id)


async def lock_active(connection: Connection, item_ids: Collection[str]) -> None:
    """Lock those of these items that are active.

    Do it before their requesters are counted: of two last requesters that withdraw at the same
    moment, the second then sees the first one's commit.
    """
    await connection.fetch(_LOCK_ACTIVE, list(item_ids))


# --- retries

_ITEM_TO_RETRY = """
SELECT q.id, q.track_id, q.track_name, q.artist_name, q.album_id, q.duration_ms, q.priority,
       q.status, q.stage, q.error_type, q.barred, q.stage = ANY($3) AND q.due_at > now() AS waits,
       EXISTS (SELECT 1 FROM item_requesters r
                WHERE r.item_id = q.id AND r.user_id = $2) AS asked,
       (SELECT a.id FROM queue_items a
         WHERE a.track_id = q.track_id AND a.id <> q.id
           AND a.status IN ('PENDING', 'DOWNLOADING')) AS active
  FROM queue_items q WHERE q.id = $1
"""

# The stages in which an item may wait for a time.
_PUT_OFF = WAITING | {Stage.READY}

# No move: it stays in its stage.
_HASTEN = """
UPDATE queue_items SET due_at = now(), wait_s = 0, reason = $2, actor = $3, updated_at = now()
 WHERE id = $1 AND stage = ANY($4) AND due_at > now()
"""

_WAITING = """
SELECT count(*) FILTER (WHERE user_id = $2) > 0 AS caller, count(*) > 0 AS anyone
  FROM item_requesters WHERE item_id = $1 AND withdrawn_at IS NULL
"""

_ADD_REQUESTER = "INSERT INTO item_requesters (item_id, request_id, user_id) VALUES ($1, $2, $3)"

# Their `album.completed` is published once more, with the new result of this item.
_REOPEN_ALBUMS = """
UPDATE requests SET settled_at = NULL
 WHERE id = ANY(ARRAY(
       SELECT r.id FROM requests r
        WHERE r.kind = 'album' AND r.settled_at IS NOT NULL
          AND EXISTS (SELECT 1 FROM item_requesters i
                       WHERE i.request_id = r.id AND i.item_id = $1 AND i.withdrawn_at IS NULL)
        ORDER BY r.id
          FOR NO KEY UPDATE))
"""


async def item_to_retry(connection: Connection, item_id: str, user_id: str | None) -> Row | None:
    """The item, whether it `waits` for a time, whether this user ever `asked` for it, and the
    `active` item of its track.
    """
    return await connection.fetchrow(_ITEM_TO_RETRY, item_id, user_id, values(_PUT_OFF))


async def hasten(connection: Connection, item_id: str, *, reason: str) -> bool:
    """Make an item that waits for a time due now; False when it does not wait any more."""
    done = await connection.execute(_HASTEN, item_id, reason, ACTOR, values(_PUT_OFF))
    return bool(done == "UPDATE 1")


async def waiting(connection: Connection, item_id: str, user_id: str | None) -> Row:
    """Whether this user waits for the item (`caller`), and whether `anyone` does."""
    row = await connection.fetchrow(_WAITING, item_id, user_id)
    assert row is not None, "a select of counts has a row"
    return row


async def add_requester(
    connection: Connection, item_id: str, request_id: str, user_id: str | None
) -> None:
    """Let a user wait for an item, by a recorded request."""
    await connection.execute(_ADD_REQUESTER, item_id, request_id, user_id)


async def reopen_albums(connection: Connection, item_id: str) -> None:
    """Open the album requests again that wait for this item."""
    await connection.execute(_REOPEN_ALBUMS, item_id)


# --- decisions

_LOCK_FOR_DECISION = """
SELECT id, stage, error_evidence FROM queue_items WHERE id = $1 FOR NO KEY UPDATE
"""


async def item_to_decide(connection: Connection, item_id: str) -> Row | None:
    """The item's stage and evidence, locked."""
    return await connection.fetchrow(_LOCK_FOR_DECISION, item_id)
