"""What all modes have in common: an intent, and the items that hold it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from shared.db.claims import Claim
from shared.db.pool import Connection
from shared.states import WAITING, DownloadState, Stage, in_sql

# One ticketer at a time counts and claims, so that all together stay within the limits.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.ticketer.claim'))"

# All items of an intent together; while a ticketer holds one of them, its download may be being
# started.
RESUMABLE = f"""
SELECT q.id, q.ticket_id
  FROM queue_items q
 WHERE q.ticket_id = ANY(ARRAY(SELECT t.id FROM tickets t
                              WHERE t.state = '{DownloadState.INTENT}' AND t.way = $1))
   AND q.stage IN ({in_sql(WAITING)}) AND q.due_at <= now()
   AND NOT EXISTS (SELECT 1 FROM queue_items h
                    WHERE h.ticket_id = q.ticket_id AND h.stage IN ({in_sql([Stage.TICKETING])}))
 ORDER BY q.priority, q.seq
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""  # noqa: S608 (made of constants)

_KEEP = f"""
UPDATE queue_items q
   SET lease_until = greatest(q.lease_until, now() + make_interval(secs => $3))
  FROM unnest($1::text[], $2::bigint[]) AS held (id, fence)
 WHERE q.id = held.id AND q.fence = held.fence AND q.stage IN ({in_sql([Stage.TICKETING])})
"""  # noqa: S608 (made of constants)


async def resumable(connection: Connection, way: str, limit: int) -> dict[str, Sequence[str]]:
    """The items of at most `limit` intents that an earlier run left behind, by ticket."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in await connection.fetch(RESUMABLE, way):
        found[row["ticket_id"]].append(row["id"])
    return dict(list(found.items())[:limit])


async def keep(connection: Connection, claims: Sequence[Claim], *, for_s: float) -> bool:
    """Make the claims last this long from now; False when no item is ours any more."""
    done = await connection.execute(
        _KEEP, [c.item_id for c in claims], [c.fence for c in claims], for_s
    )
    return bool(done != "UPDATE 0")
