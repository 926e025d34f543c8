"""Moves of queue items that more than one service makes.

Every write is guarded by the stage it starts from (taken from `shared.states`) and, where a worker
holds the item, by the fence of its claim. The history row is written by the database with it.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog

from shared.backoff import RetryPolicy
from shared.db.events import record_events
from shared.db.pool import Connection, Database, Row
from shared.errors import AttemptFailed, Stale
from shared.events import AlbumCompleted
from shared.states import LEASED, STATUS_OF, Stage, allowed_from

log = structlog.get_logger()

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on one item until its lease runs out; `fence` proves it."""

    item_id: str
    fence: int


_HAND_BACK = """
UPDATE queue_items
   SET stage = $3, status = $4, lease_until = NULL, lease_owner = NULL,
       due_at = now() + make_interval(secs => $5), reason = $6, actor = $7, updated_at = now()
 WHERE id = $1 AND fence = $2 AND stage = ANY($8)
"""


async def hand_back(
    connection: Connection, claim: Claim, stage: Stage, *, delay_s: float, reason: str, actor: str
) -> bool:
    """Give an item back unharmed, to be taken up again after `delay_s`; burns no attempt.

    Only out of a leased stage: a worker whose last write may have been committed without its
    knowing must not undo it. False: it is no longer held by this claim.
    """
    done = await connection.execute(
        _HAND_BACK,
        claim.item_id,
        claim.fence,
        stage.value,
        STATUS_OF[stage].value,
        float(delay_s),
        reason,
        actor,
        sorted(LEASED & set(allowed_from(stage))),
    )
    return _one(done, claim, stage)


_GO_ON = """
UPDATE queue_items
   SET stage = $3, status = $4, lease_until = NULL, lease_owner = NULL, due_at = now(),
       ask_next = $5, reason = $6, actor = $7, updated_at = now()
 WHERE id = $1 AND fence = $2 AND stage = ANY($8)
"""


async def go_on(
    connection: Connection, claim: Claim, *, ask_next: str, reason: str, actor: str
) -> bool:
    """Queue a held item at once for the other kind of ticket (`track`, `album`); burns no attempt.

    False: it is no longer held by this claim.
    """
    done = await connection.execute(
        _GO_ON,
        claim.item_id,
        claim.fence,
        Stage.QUEUED.value,
        STATUS_OF[Stage.QUEUED].value,
        ask_next,
        reason,
        actor,
        sorted(LEASED & set(allowed_from(Stage.QUEUED))),
    )
    return _one(done, claim, Stage.QUEUED)


_ADVANCE = """
UPDATE queue_items
   SET stage = $3, status = $4, reason = $5, actor = $6, updated_at = now()
 WHERE id = $1 AND fence = $2 AND stage = ANY($7)
"""


async def advance(
    connection: Connection, claim: Claim, stage: Stage, *, reason: str, actor: str
) -> None:
    """Move a held item to the next stage of the same claim.

    Raises:
        Stale: the claim is no longer ours.
    """
    done = await connection.execute(
        _ADVANCE,
        claim.item_id,
        claim.fence,
        stage.value,
        STATUS_OF[stage].value,
        reason,
        actor,
        allowed_from(stage),
    )
    if not _one(done, claim, stage):
        raise Stale(f"item {claim.item_id} is no longer held by fence {claim.fence}")


_RENEW = """
UPDATE queue_items AS q
   SET lease_until = greatest(q.lease_until, now() + make_interval(secs => $3))
  FROM unnest($1::text[], $2::bigint[]) AS held (id, fence)
 WHERE q.id = held.id AND q.fence = held.fence AND q.lease_until IS NOT NULL
RETURNING q.id
"""


async def renew(database: Database, claims: Collection[Claim], *, lease_s: float) -> set[str]:
    """Extend the leases, shorten none; returns the ids that were still ours."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            _RENEW, [c.item_id for c in claims], [c.fence for c in claims], float(lease_s)
        )
    return {row["id"] for row in rows}


_LOCK_FOR_FAILURE = """
SELECT retry_count FROM queue_items
 WHERE id = $1 AND stage = ANY($2) AND ($3::bigint IS NULL OR fence = $3)
   FOR NO KEY UPDATE
"""

_FAIL = """
UPDATE queue_items q
   SET stage = $2, status = $3, retry_count = $4,
       due_at = now() + make_interval(secs => $5),
       completed_at = CASE WHEN $3 = 'FAILED' THEN extract(epoch FROM now())::bigint END,
       error_type = $6, error_message = $7, error_evidence = $8, reason = $7, actor = $9,
       detours = 0, grabs = 0,
       ask_next = (SELECT CASE WHEN t.way = 'direct' THEN NULL
                               WHEN t.kind = 'track' AND q.album_id IS NOT NULL THEN 'album'
                               WHEN t.id IS NOT NULL THEN 'track'
                               ELSE q.ask_next END
                     FROM (SELECT q.ticket_id AS id) i LEFT JOIN tickets t USING (id)),
       chosen_file = NULL, converted_pct = NULL,
       lease_until = NULL, lease_owner = NULL, fence = nextval('fence_seq'), updated_at = now()
 WHERE id = $1
"""


async def fail_attempt(
    connection: Connection,
    item_id: str,
    failure: AttemptFailed,
    *,
    stages: Collection[Stage],
    fence: int | None,
    policy: RetryPolicy,
    rng: random.Random,
    actor: str,
    delay_s: float | None = None,
) -> Stage | None:
    """End this attempt: the item waits for its next one, or fails when the budget is used up.

    `delay_s`: how long it waits, where something else than the policy says so.
    Call it in a transaction. Returns the new stage, or None when the item has moved on.
    The ticket stays linked until it is closed, so that no second one is made beside it.
    """
    row = await connection.fetchrow(
        _LOCK_FOR_FAILURE, item_id, [stage.value for stage in stages], fence
    )
    if row is None:
        log.info("stale_failure_dropped", item_id=item_id, cause=failure.error_type)
        return None
    retried: int = row["retry_count"]
    again = policy.allows(failure.error_type, retried)
    stage = Stage.RETRY_WAIT if again else Stage.FAILED
    await connection.execute(
        _FAIL,
        item_id,
        stage.value,
        STATUS_OF[stage].value,
        retried + 1 if again else retried,
        (policy.delay_s(retried, rng) if delay_s is None else delay_s) if again else 0.0,
        failure.error_type.value,
        failure.message,
        failure.evidence or None,
        actor,
    )
    log.info(
        "attempt_failed",
        item_id=item_id,
        error_type=failure.error_type,
        message=failure.message,
        retry_count=retried,
        stage=stage,
    )
    if stage is Stage.FAILED:
        await settle_albums(connection, [item_id], actor=actor)
    return stage


# An item that the user withdrew does not count; a request of which all items are withdrawn is
# settled without an event.
# The request rows are locked in order before their items are counted: of two items that end at the
# same moment, the second waits here for the first one's commit and then sees it.
_LOCK_ALBUMS = """
SELECT r.id FROM requests r
 WHERE r.kind = 'album' AND r.settled_at IS NULL
   AND EXISTS (SELECT 1 FROM item_requesters i WHERE i.request_id = r.id AND i.item_id = ANY($1))
 ORDER BY r.id
   FOR NO KEY UPDATE
"""

_SETTLE_ALBUMS = """
WITH counted AS (
    SELECT r.id,
           count(*) FILTER (WHERE q.status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE q.status = 'FAILED') AS failed,
           count(*) FILTER (WHERE q.status IN ('PENDING', 'DOWNLOADING')) AS open
      FROM requests r
      LEFT JOIN item_requesters i ON i.request_id = r.id AND i.withdrawn_at IS NULL
      LEFT JOIN queue_items q ON q.id = i.item_id
     WHERE r.id = ANY($1)
     GROUP BY r.id
)
UPDATE requests r SET settled_at = now()
  FROM counted c WHERE r.id = c.id AND c.open = 0
RETURNING r.id, r.content_id, r.content_name, r.artist_name, r.user_id,
          r.already_available, c.completed, c.failed
"""


async def settle_albums(connection: Connection, item_ids: Collection[str], *, actor: str) -> None:
    """Close the album requests whose last item has just ended, with one event each.

    Call it in the transaction that ended the items, or that withdrew a request for them.
    """
    rows = await connection.fetch(_LOCK_ALBUMS, list(item_ids))
    if not rows:
        return
    settled = await connection.fetch(_SETTLE_ALBUMS, [row["id"] for row in rows])
    completed = [_album_completed(row) for row in settled if row["completed"] + row["failed"] > 0]
    if completed:
        await record_events(connection, completed, actor=actor)


def _album_completed(row: Row) -> AlbumCompleted:
    return AlbumCompleted(
        album_id=row["content_id"],
        album_name=row["content_name"],
        artist_name=row["artist_name"],
        request_ids=(row["id"],),
        user_ids=() if row["user_id"] is None else (row["user_id"],),
        completed=row["completed"],
        failed=row["failed"],
        already_available=row["already_available"],
    )


def _one(done: str, claim: Claim, stage: Stage) -> bool:
    moved = done == "UPDATE 1"
    if not moved:
        log.info("stale_write_dropped", item_id=claim.item_id, fence=claim.fence, to=stage)
    return moved
