"""What the fetcher-writer reads and writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from shared.db.items import Claim
from shared.db.pool import Connection, Database
from shared.errors import Stale
from shared.metrics import ITEMS_CLAIMED
from shared.states import STATUS_OF, Stage, sources


@dataclass(frozen=True, kw_only=True)
class Work:
    """An item whose file is ready to be collected."""

    claim: Claim
    track_id: str
    duration_ms: int | None
    dest_path: str
    files_placed: int | None
    final_size_bytes: int | None


_CLAIM = """
WITH taken AS (
    UPDATE queue_items
       SET stage = $1, status = $2, actor = 'fetcher_writer', reason = 'collecting the file',
           fence = nextval('fence_seq'), lease_owner = $3,
           lease_until = now() + make_interval(secs => $4), updated_at = now()
     WHERE id = ANY(ARRAY(
           SELECT id FROM queue_items
            WHERE stage = 'ready' AND due_at <= now()
            ORDER BY priority, seq
            LIMIT $5
              FOR NO KEY UPDATE SKIP LOCKED))
       AND stage = ANY($6)
    RETURNING id, fence, track_id, duration_ms, ticket_id, priority, seq
)
SELECT i.id, i.fence, i.track_id, i.duration_ms, t.dest_path, t.files_placed, t.final_size_bytes
  FROM taken i JOIN tickets t ON t.id = i.ticket_id
 ORDER BY i.priority, i.seq
"""

_HELD = """
SELECT 1 FROM queue_items
 WHERE id = $1 AND fence = $2 AND stage IN ('fetching', 'verifying')
   FOR NO KEY UPDATE
"""

# Folders of ended tickets that no item still collects from.
_TO_CLEAN = """
SELECT t.id, t.dest_path FROM tickets t
 WHERE t.state = 'closed' AND t.collected_at IS NULL
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id AND q.stage IN ('ready', 'fetching', 'verifying'))
 ORDER BY t.closed_at
 LIMIT 50
"""

_CLEANED = "UPDATE tickets SET collected_at = now() WHERE id = ANY($1) AND collected_at IS NULL"


class Store:
    """The fetcher-writer's side of the queue."""

    def __init__(self, database: Database, *, lease_s: float, worker: str) -> None:
        self.database = database
        self._lease_s = lease_s
        self._worker = worker

    async def claim(self, limit: int) -> list[Work]:
        """Take up to `limit` items whose file is ready, most urgent first."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _CLAIM,
                Stage.FETCHING.value,
                STATUS_OF[Stage.FETCHING].value,
                self._worker,
                self._lease_s,
                limit,
                sources(Stage.FETCHING),
            )
        ITEMS_CLAIMED.labels(Stage.FETCHING).inc(len(rows))
        return [
            Work(
                claim=Claim(item_id=row["id"], fence=row["fence"]),
                track_id=row["track_id"],
                duration_ms=row["duration_ms"],
                dest_path=row["dest_path"],
                files_placed=row["files_placed"],
                final_size_bytes=row["final_size_bytes"],
            )
            for row in rows
        ]

    async def to_clean(self) -> dict[str, str]:
        """Incoming folders that nobody needs any more: dest_path by ticket id."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_TO_CLEAN)
        return {row["id"]: row["dest_path"] for row in rows}

    async def cleaned(self, ticket_ids: Collection[str]) -> None:
        """Note that their folders are gone, or are not ours to remove."""
        async with self.database.connection() as connection:
            await connection.execute(_CLEANED, list(ticket_ids))


async def hold(connection: Connection, claim: Claim) -> None:
    """Lock the item for the rest of the transaction, if it is still ours.

    Raises:
        Stale: somebody else has it, or it was cancelled.
    """
    if await connection.fetchval(_HELD, claim.item_id, claim.fence) is None:
        raise Stale(f"item {claim.item_id} is no longer held by fence {claim.fence}")
