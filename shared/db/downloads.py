"""What becomes of an item when its download did not bring its track."""

from __future__ import annotations

import random
from collections.abc import Collection

import structlog

from shared.backoff import RetryPolicy
from shared.db.blocklist import Why, block
from shared.db.items import fail_attempt
from shared.db.pool import Connection
from shared.errors import AttemptFailed
from shared.states import STATUS_OF, Stage, allowed_from

log = structlog.get_logger()

# Then there is another search, unless a person asks for it sooner.
_AFTER_ALL_GRABS_S = 86_400.0

_NEXT = """
UPDATE queue_items
   SET stage = $2, status = $3, reason = $4, actor = $5, grabs = grabs + 1, due_at = now(),
       chosen_file = NULL, converted_pct = NULL, lease_until = NULL, lease_owner = NULL,
       fence = nextval('fence_seq'), updated_at = now()
 WHERE id = $1 AND stage = ANY($6) AND ($7::bigint IS NULL OR fence = $7) AND grabs + 1 < $8
"""

_LOCK = """
SELECT 1 FROM queue_items
 WHERE id = $1 AND stage = ANY($2) AND ($3::bigint IS NULL OR fence = $3)
   FOR NO KEY UPDATE
"""


async def next_release(
    connection: Connection,
    item_id: str,
    failure: AttemptFailed,
    *,
    why: Why,
    stages: Collection[Stage],
    fence: int | None,
    max_grabs: int,
    policy: RetryPolicy,
    rng: random.Random,
    actor: str,
) -> Stage | None:
    """Block the release of the item's download for its track, and let it take the next one.

    After `max_grabs` downloads the attempt is over, with the last one's evidence, and there is
    another search in a day. Call it in a transaction. Returns the new stage, or None when the item
    has moved on.
    """
    names = [stage.value for stage in stages]
    if await connection.fetchval(_LOCK, item_id, names, fence) is None:
        log.info("stale_failure_dropped", item_id=item_id, cause=failure.error_type)
        return None
    await block(connection, [item_id], why=why, reason=failure.message)
    moved = await connection.execute(
        _NEXT,
        item_id,
        Stage.QUEUED.value,
        STATUS_OF[Stage.QUEUED].value,
        f"{failure.message}: takes the next release"[:500],
        actor,
        sorted(set(names) & set(allowed_from(Stage.QUEUED))),
        fence,
        max_grabs,
    )
    if moved == "UPDATE 1":
        return Stage.QUEUED
    told = AttemptFailed(
        failure.error_type,
        f"{max_grabs} downloads did not bring it, the last one: {failure.message}"[:1000],
        failure.evidence,
    )
    return await fail_attempt(
        connection,
        item_id,
        told,
        stages=stages,
        fence=fence,
        policy=policy,
        rng=rng,
        actor=actor,
        delay_s=_AFTER_ALL_GRABS_S,
    )
