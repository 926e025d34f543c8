"""A person's retry: a FAILED item goes back into the queue, as a new attempt with a whole budget.

The ticket of the attempt that failed stays linked until it is at rest, so that the ticketer waits
for it as for any other; what still comes of it meets a new fence and a stage that it cannot move.
"""

from __future__ import annotations

import asyncio
import uuid

import structlog

from services.ingest import limits
from services.ingest.availability import Availability
from services.ingest.limits import Caller, Policy
from shared.bus.nats import Bus
from shared.catalog.models import Track
from shared.crashpoints import reached
from shared.db import moves
from shared.db.bad_sources import unblock_sources
from shared.db.blocklist import unblock
from shared.db.enqueue import Request, record_request
from shared.db.ledger import Placed, placed
from shared.db.pool import Connection, Database, Row, taken
from shared.db.releases import memory_of, search_again
from shared.errors import Conflict, LimitReached, Unknown
from shared.health import Health
from shared.states import Stage
from shared.untrusted import token

log = structlog.get_logger()

ACTOR = "ingest"

_ITEM = """
SELECT q.id, q.track_id, q.track_name, q.artist_name, q.album_id, q.duration_ms, q.priority,
       q.status, q.stage,
       EXISTS (SELECT 1 FROM item_requesters r
                WHERE r.item_id = q.id AND r.user_id = $2) AS asked,
       (SELECT a.id FROM queue_items a
         WHERE a.track_id = q.track_id AND a.id <> q.id
           AND a.status IN ('PENDING', 'DOWNLOADING')) AS active
  FROM queue_items q WHERE q.id = $1
"""

_LOCK = "SELECT id FROM queue_items WHERE id = $1 FOR NO KEY UPDATE"

_WAITING = """
SELECT count(*) FILTER (WHERE user_id = $2) > 0 AS caller, count(*) > 0 AS anybody
  FROM item_requesters WHERE item_id = $1 AND withdrawn_at IS NULL
"""

_ADD_REQUESTER = "INSERT INTO item_requesters (item_id, request_id, user_id) VALUES ($1, $2, $3)"

# Their `album.completed` is told once more, with what became of this item.
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


class Retries:
    """Puts FAILED items back into the queue."""

    def __init__(
        self,
        *,
        database: Database,
        availability: Availability,
        bus: Bus,
        relay_wake: asyncio.Event,
        policy: Policy,
        health: Health,
    ) -> None:
        self._database = database
        self._availability = availability
        self._bus = bus
        self._relay_wake = relay_wake
        self._policy = policy
        self._health = health

    async def item(self, item_id: str, *, caller: Caller) -> None:
        """Retry one item. An administrator (a caller without limits) may retry everybody's, and
        gives every source another chance that gave broken audio before.

        Who had withdrawn it waits for it again; who still waits, stays.

        Raises:
            InvalidRequest, Unknown: there is none, or this user has not asked for it.
            Conflict: it is not FAILED, or its track is worked on or there already.
            LimitReached: the user's queue is full.
            Unavailable: it cannot be decided now.
        """
        token(item_id, what="item id")
        async with self._database.connection() as connection:
            track = _track(await _checked(connection, item_id, caller))
        available = await self._availability.check([track])
        self._health.up("media")
        if available.recorded or available.found:
            raise _there(track.id)
        with taken("the track was queued at this very moment; ask for the track to join it"):
            async with self._database.transaction() as connection:
                await limits.lock(connection, caller)
                await self._retry(connection, item_id, caller, available.ledger.get(track.id))
        reached("retry.committed")
        log.info("item_retried", item_id=item_id, user_id=caller.user_id)
        self._relay_wake.set()
        await self._bus.wake("ticket")

    async def _retry(
        self, connection: Connection, item_id: str, caller: Caller, known: Placed | None
    ) -> None:
        await connection.fetch(_LOCK, item_id)
        row = await _checked(connection, item_id, caller)
        if (await placed(connection, [row["track_id"]])).get(row["track_id"]) != known:
            raise _there(row["track_id"])
        who = "an administrator" if caller.unlimited else f"user {caller.user_id}"
        moved = await moves.retry(connection, [item_id], reason=f"retried by {who}", actor=ACTOR)
        assert moved, "the row is locked, and was FAILED"
        # Somebody asks: it is searched for again, whatever was not found before.
        memory = memory_of(album_id=row["album_id"] or None, track_id=row["track_id"])
        await search_again(connection, memory)
        await _return(connection, row, caller)
        await connection.execute(_REOPEN_ALBUMS, item_id)
        if caller.unlimited:
            await unblock_sources(connection, row["track_id"])
            await unblock(connection, row["track_id"])
        else:
            await self._check_limit(connection, caller)

    async def _check_limit(self, connection: Connection, caller: Caller) -> None:
        usage = await limits.usage(connection, caller)
        # Counted with this item in it; the exception takes it out again.
        if usage.in_queue > self._policy.max_queue:
            raise LimitReached(
                f"this would make {usage.in_queue} items in your queue,"
                f" {self._policy.max_queue} are allowed; wait for some to finish"
            )


async def _checked(connection: Connection, item_id: str, caller: Caller) -> Row:
    """The item, if it can be retried."""
    row = await connection.fetchrow(_ITEM, item_id, caller.user_id)
    if row is None or not (row["asked"] or caller.unlimited):
        raise Unknown(f"there is no item {item_id[:80]!r} among your requests")
    if row["stage"] != Stage.FAILED:
        raise Conflict(f"the item is {row['status']}; only a FAILED one can be retried")
    if row["active"] is not None:
        raise Conflict(
            f"the track is in the queue again as item {row['active']}; ask for the track to join it"
        )
    return row


async def _return(connection: Connection, row: Row, caller: Caller) -> None:
    """Who had withdrawn the item waits for it again; so does the caller if nobody else would.

    By a new request: the old one stays withdrawn, for its withdrawal may be delivered once more.
    """
    waiting = await connection.fetchrow(_WAITING, row["id"], caller.user_id)
    assert waiting is not None, "a select of counts has a row"
    if waiting["caller"] or (waiting["anybody"] and not row["asked"]):
        return
    request = Request(
        id=str(uuid.uuid4()),
        user_id=caller.user_id,
        kind="track",
        content_id=row["track_id"],
        content_name=row["track_name"],
        artist_name=row["artist_name"],
        priority=row["priority"],
        source="http",
    )
    await record_request(connection, request, settled=False)
    await connection.execute(_ADD_REQUESTER, row["id"], request.id, caller.user_id)


def _there(track_id: str) -> Conflict:
    return Conflict(
        f"the file of {track_id} is in place meanwhile; nothing has to be fetched: ask for the"
        " track, and it is answered as available"
    )


def _track(row: Row) -> Track:
    """As much of the track as looking for its file takes."""
    return Track(
        id=row["track_id"],
        name=row["track_name"],
        artists=(),
        album_id=row["album_id"],
        album_name=None,
        album_artist=None,
        disc_number=None,
        track_number=None,
        duration_ms=row["duration_ms"],
        isrc=None,
        popularity=None,
    )
