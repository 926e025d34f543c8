"""The right to work on an item, and how long it lasts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from shared.db.pool import Database


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on one item until its lease runs out; `fence` proves it."""

    item_id: str
    fence: int


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
