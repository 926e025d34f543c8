"""What all modes have in common: an intent, and the items that hold it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shared.db import moves
from shared.db.claims import Claim
from shared.db.moves import Start
from shared.db.pool import Connection, Row
from shared.metrics import ITEMS_CLAIMED
from shared.states import WAITING, DownloadState, Stage, in_sql

# One ticketer at a time counts and claims, so that all together stay within the limits.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.ticketer.claim'))"

# All items of an intent together; while a ticketer holds one of them, its download may be being
# started.
RESUMABLE = f"""
SELECT q.id, q.ticket_id, t.failures
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE t.state = '{DownloadState.INTENT}' AND t.way = $1
   AND q.stage IN ({in_sql(WAITING)}) AND q.due_at <= now()
   AND NOT EXISTS (SELECT 1 FROM queue_items h
                    WHERE h.ticket_id = q.ticket_id AND h.stage IN ({in_sql([Stage.TICKETING])}))
 ORDER BY q.priority, q.turn, q.seq
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""  # noqa: S608 (made of constants)

# What failed alone may fail again, after the longest wait for an answer.
_MOST_FAILED = 4
_FAILED_AT_WORK = f"""
SELECT count(DISTINCT t.id)
  FROM tickets t JOIN queue_items q ON q.ticket_id = t.id
 WHERE t.state = '{DownloadState.INTENT}' AND t.way = $1 AND t.failures > 0
   AND q.stage IN ({in_sql([Stage.TICKETING])})
"""  # noqa: S608 (made of constants)

_KEEP = f"""
UPDATE queue_items q
   SET lease_until = greatest(q.lease_until, now() + make_interval(secs => $3))
  FROM unnest($1::text[], $2::bigint[]) AS held (id, fence)
 WHERE q.id = held.id AND q.fence = held.fence AND q.stage IN ({in_sql([Stage.TICKETING])})
"""  # noqa: S608 (made of constants)


ACTOR = "ticketer"


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """Why an item is claimed, for its history."""

    fresh: str
    resumed: str


async def resumable(connection: Connection, way: str, limit: int) -> dict[str, Sequence[str]]:
    """The items of at most `limit` intents that an earlier run left behind, by ticket.

    Those that failed alone come last, and take few places at once, over all ticketers.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    failed: defaultdict[str, list[str]] = defaultdict(list)
    for row in await connection.fetch(RESUMABLE, way):
        (failed if row["failures"] else found)[row["ticket_id"]].append(row["id"])
    if failed:
        room = max(0, _MOST_FAILED - await connection.fetchval(_FAILED_AT_WORK, way))
        found |= dict(list(failed.items())[:room])
    return dict(list(found.items())[:limit])


async def keep(connection: Connection, claims: Sequence[Claim], *, for_s: float) -> bool:
    """Make the claims last this long from now; False when no item is ours any more."""
    done = await connection.execute(
        _KEEP, [c.item_id for c in claims], [c.fence for c in claims], for_s
    )
    return bool(done != "UPDATE 0")


async def claim_items(
    connection: Connection,
    linked: Mapping[str, Sequence[str]],
    *,
    resumed: Collection[str],
    reasons: Reasons,
    worker: str,
    lease_s: float,
) -> dict[str, list[Row]]:
    """Claim these items, by the intent that each is linked to; rows of `moves.claim_to_ticket`.

    The most urgent intent and item come first. `resumed`: the intents of an earlier run.
    """
    starts = [
        Start(
            item_id=item_id,
            ticket_id=ticket_id,
            resumed=ticket_id in resumed,
            reason=reasons.resumed if ticket_id in resumed else reasons.fresh,
        )
        for ticket_id, item_ids in linked.items()
        for item_id in item_ids
    ]
    rows = await moves.claim_to_ticket(
        connection, starts, worker=worker, lease_s=lease_s, actor=ACTOR
    )
    ITEMS_CLAIMED.labels(Stage.TICKETING).inc(len(rows))
    by_intent: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["priority"], row["turn"], row["seq"])):
        by_intent[row["ticket_id"]].append(row)
    return dict(by_intent)
