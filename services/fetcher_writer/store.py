"""What the fetcher-writer reads and writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from services.fetcher_writer.room import MIB, Room
from shared.db.items import Claim
from shared.db.pool import Connection, Database, Row
from shared.errors import DependencyDown, Stale
from shared.metrics import ITEMS_CLAIMED
from shared.states import STATUS_OF, Stage, sources

log = structlog.get_logger()

# How often a file is looked at again that no emptying of the disk would help.
_PUT_OFF_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """An item whose file is ready to be collected."""

    claim: Claim
    track_id: str
    duration_ms: int | None
    dest_path: str
    files_placed: int | None
    final_size_bytes: int | None


# Who counts what is reserved must see what the one before has claimed.
_LOCK_ROOM = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.media_room'))"

# What the holders of items have yet to write; a ticket that does not say its size counts nothing.
_RESERVED = """
SELECT coalesce(sum(greatest(t.final_size_bytes - coalesce(p.bytes, 0), 0)), 0)::bigint
  FROM queue_items q
  JOIN tickets t ON t.id = q.ticket_id
  LEFT JOIN unnest($1::text[], $2::bigint[]) AS p (name, bytes)
    ON p.name = q.id || '.' || q.fence || '.part'
 WHERE q.stage IN ('fetching', 'verifying', 'converting')
"""

# Of the most urgent ones that fit by themselves, as many as fit together. $7 NULL: all fit.
_CLAIM = """
WITH due AS (
    SELECT q.id, q.priority, q.seq, coalesce(t.final_size_bytes, 0) AS bytes
      FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
     WHERE q.stage = 'ready' AND q.due_at <= now()
       AND ($7::bigint IS NULL OR coalesce(t.final_size_bytes, 0) <= $7)
     ORDER BY q.priority, q.seq
     LIMIT $5
       FOR NO KEY UPDATE OF q SKIP LOCKED
), fitting AS (
    SELECT s.id FROM (
        SELECT d.id, sum(d.bytes) OVER (ORDER BY d.priority, d.seq) AS together FROM due d) s
     WHERE $7::bigint IS NULL OR s.together <= $7
), taken AS (
    UPDATE queue_items
       SET stage = $1, status = $2, actor = 'fetcher_writer', reason = 'collecting the file',
           fence = nextval('fence_seq'), lease_owner = $3,
           lease_until = now() + make_interval(secs => $4), updated_at = now()
     WHERE id IN (SELECT f.id FROM fitting f)
       AND stage = ANY($6)
    RETURNING id, fence, track_id, duration_ms, ticket_id, priority, seq
)
SELECT i.id, i.fence, i.track_id, i.duration_ms, t.dest_path, t.files_placed, t.final_size_bytes
  FROM taken i JOIN tickets t ON t.id = i.ticket_id
 ORDER BY i.priority, i.seq
"""

_LEAST_WAITING = """
SELECT min(t.final_size_bytes)
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.stage = 'ready' AND q.due_at <= now() AND t.final_size_bytes > $1
"""

# More than the whole disk: told once, and looked at again when a larger one may be there.
_NEVER_FITTING = """
UPDATE queue_items q
   SET due_at = now() + make_interval(secs => $2), actor = 'fetcher_writer', updated_at = now(),
       reason = 'waits for a larger disk: its ticket has ' || t.final_size_bytes / 1048576
                || ' MiB, all of the media root has ' || $1 / 1048576
  FROM tickets t
 WHERE t.id = q.ticket_id AND q.stage = 'ready' AND q.due_at <= now() AND t.final_size_bytes > $1
RETURNING q.id
"""

_HELD = """
SELECT 1 FROM queue_items
 WHERE id = $1 AND fence = $2 AND stage IN ('fetching', 'verifying', 'converting')
   FOR NO KEY UPDATE
"""

# Folders of ended tickets that no item still collects from.
_TO_CLEAN = """
SELECT t.id, t.dest_path FROM tickets t
 WHERE t.state = 'closed' AND t.collected_at IS NULL
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id
                      AND q.stage IN ('ready', 'fetching', 'held', 'verifying', 'converting'))
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

    async def claim(self, limit: int, room: Room | None = None) -> list[Work]:
        """Take up to `limit` items whose file is ready, most urgent first.

        Only what fits into `room` beside what all workers hold; None: what is collected takes none.

        Raises:
            DependencyDown: files wait, and none of them fits now.
        """
        async with self.database.transaction() as connection:
            usable_bytes = None if room is None else await _unreserved(connection, room)
            rows = await connection.fetch(
                _CLAIM,
                Stage.FETCHING.value,
                STATUS_OF[Stage.FETCHING].value,
                self._worker,
                self._lease_s,
                limit,
                sources(Stage.FETCHING),
                usable_bytes,
            )
            least_bytes = None
            if not rows and usable_bytes is not None:
                least_bytes = await connection.fetchval(_LEAST_WAITING, usable_bytes)
        ITEMS_CLAIMED.labels(Stage.FETCHING).inc(len(rows))
        if least_bytes is not None:
            raise DependencyDown("space", _no_room(least_bytes, usable_bytes or 0))
        return [_work(row) for row in rows]

    async def put_off(self, room: Room) -> int:
        """Let those wait that would not fit on the empty disk; returns how many."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_NEVER_FITTING, room.total_bytes, _PUT_OFF_S)
        for row in rows:
            log.warning("larger_than_the_disk", item_id=row["id"], total_bytes=room.total_bytes)
        return len(rows)

    async def to_clean(self) -> dict[str, str]:
        """Incoming folders that nobody needs any more: dest_path by ticket id."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_TO_CLEAN)
        return {row["id"]: row["dest_path"] for row in rows}

    async def cleaned(self, ticket_ids: Collection[str]) -> None:
        """Note that their folders are gone, or are not ours to remove."""
        async with self.database.connection() as connection:
            await connection.execute(_CLEANED, list(ticket_ids))


def _work(row: Row) -> Work:
    return Work(
        claim=Claim(item_id=row["id"], fence=row["fence"]),
        track_id=row["track_id"],
        duration_ms=row["duration_ms"],
        dest_path=row["dest_path"],
        files_placed=row["files_placed"],
        final_size_bytes=row["final_size_bytes"],
    )


async def _unreserved(connection: Connection, room: Room) -> int:
    """Bytes that nobody holds; until the transaction ends nobody else counts them."""
    await connection.execute(_LOCK_ROOM)
    reserved: int = await connection.fetchval(
        _RESERVED, list(room.parts), list(room.parts.values())
    )
    return max(0, room.usable_bytes - reserved)


def _no_room(least_bytes: int, usable_bytes: int) -> str:
    return (
        f"the files that wait need {least_bytes // MIB + 1} MiB or more, but beyond"
        f" MIN_FREE_DISK_MB and what is being fetched only {usable_bytes // MIB} MiB are free"
    )


async def hold(connection: Connection, claim: Claim) -> None:
    """Lock the item for the rest of the transaction, if it is still ours.

    Raises:
        Stale: somebody else has it, or it was cancelled.
    """
    if await connection.fetchval(_HELD, claim.item_id, claim.fence) is None:
        raise Stale(f"item {claim.item_id} is no longer held by fence {claim.fence}")
