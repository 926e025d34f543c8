"""What the ticketer reads and writes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from shared.crashpoints import reached
from shared.db.items import Claim
from shared.db.pool import IN_INDEX_ORDER, Connection, Database, Row
from shared.metrics import ITEMS_CLAIMED
from shared.states import STATUS_OF, Stage, sources


@dataclass(frozen=True, kw_only=True)
class Work:
    """An item to get a ticket for, and the intent under which it is asked for."""

    claim: Claim
    ticket_id: str
    dest_path: str
    track_name: str
    main_artist: str | None
    priority: int
    # The intent is an earlier run's: the ticket may exist already.
    resumed: bool


# One ticketer at a time counts and claims, so that all together keep MAX_TICKETS_IN_FLIGHT.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.ticketer.claim'))"

# A ticket that waits for a person keeps no place, up to ten times as many as there are places:
# nothing is done for it, but the poller looks at every one.
_IN_FLIGHT = """
SELECT count(*) - least(count(*) FILTER (WHERE state = 'open' AND remote_state = 'needs_approval'),
                        10 * $1)
  FROM tickets WHERE state <> 'closed'
"""

_RESUMABLE = """
SELECT q.id, q.ticket_id
  FROM queue_items q
 WHERE q.ticket_id = ANY(ARRAY(SELECT t.id FROM tickets t WHERE t.state = 'intent'))
   AND q.stage IN ('queued', 'retry_wait') AND q.due_at <= now()
 ORDER BY q.priority, q.seq
 LIMIT $1
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

# A ticket that is still being withdrawn keeps its item waiting, and so does that of an earlier item
# of the same track: never two live tickets for one track, which might share a torrent.
_FRESH = """
SELECT q.id
  FROM queue_items q LEFT JOIN tickets t ON t.id = q.ticket_id
 WHERE q.stage IN ('queued', 'retry_wait') AND q.due_at <= now()
   AND (t.id IS NULL OR t.state = 'closed')
   AND NOT EXISTS (SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
                    WHERE o.track_id = q.track_id AND o.id <> q.id AND ot.state <> 'closed')
 ORDER BY q.priority, q.seq
 LIMIT $1
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_NEW_INTENTS = """
INSERT INTO tickets (id, dest_path, priority)
SELECT t.id, t.dest_path, 0 FROM unnest($1::text[], $2::text[]) AS t (id, dest_path)
"""

_CLAIM = """
UPDATE queue_items q
   SET stage = $1, status = $2, actor = 'ticketer', lease_owner = $3,
       lease_until = now() + make_interval(secs => $4), fence = nextval('fence_seq'),
       reason = CASE WHEN d.resumed THEN 'looking for the ticket of an earlier try'
                     ELSE 'asking for a ticket' END,
       attempt = q.attempt + CASE WHEN d.resumed THEN 0 ELSE 1 END,
       torrentino_ticket_id = CASE WHEN d.resumed THEN q.torrentino_ticket_id END,
       ticket_id = d.ticket_id,
       started_at = coalesce(q.started_at, extract(epoch FROM now())::bigint),
       updated_at = now()
  FROM unnest($5::text[], $6::text[], $7::boolean[]) AS d (item_id, ticket_id, resumed)
 WHERE q.id = d.item_id AND q.stage = ANY($8)
RETURNING q.id, q.fence, q.ticket_id, q.track_name, q.main_artist, q.artist_name, q.priority,
          q.seq, d.resumed
"""


_KEEP = """
UPDATE queue_items SET lease_until = greatest(lease_until, now() + make_interval(secs => $3))
 WHERE id = $1 AND fence = $2 AND stage = 'ticketing'
"""


class Store:
    """The ticketer's side of the queue."""

    def __init__(
        self, database: Database, *, dest_root: str, max_in_flight: int, lease_s: float, worker: str
    ) -> None:
        self._database = database
        self._dest_root = dest_root.rstrip("/")
        self._max_in_flight = max_in_flight
        self._lease_s = lease_s
        self._worker = worker

    async def claim(self, limit: int) -> list[Work]:
        """Take up to `limit` due items, most urgent first, and record the intent of each.

        Items whose intent an earlier run left behind come first and need no free place.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_ONE_AT_A_TIME)
            resumed = await connection.fetch(_RESUMABLE, limit)
            in_flight = await connection.fetchval(_IN_FLIGHT, self._max_in_flight)
            room = min(limit - len(resumed), self._max_in_flight - in_flight)
            fresh = await self._fresh(connection, room) if room > 0 else []
            if not resumed and not fresh:
                return []
            intents = {row["id"]: str(uuid.uuid4()) for row in fresh}
            await connection.execute(
                _NEW_INTENTS,
                list(intents.values()),
                [self._dest_path(ticket_id) for ticket_id in intents.values()],
            )
            reached("ticketer.intended")
            linked = {row["id"]: row["ticket_id"] for row in resumed} | intents
            return await self._mark(connection, linked, fresh=set(intents))

    async def _fresh(self, connection: Connection, limit: int) -> list[Row]:
        await connection.execute(IN_INDEX_ORDER)
        rows: list[Row] = await connection.fetch(_FRESH, limit)
        return rows

    def _dest_path(self, ticket_id: str) -> str:
        return f"{self._dest_root}/{ticket_id}"

    async def _mark(
        self, connection: Connection, linked: dict[str, str], *, fresh: set[str]
    ) -> list[Work]:
        rows = await connection.fetch(
            _CLAIM,
            Stage.TICKETING.value,
            STATUS_OF[Stage.TICKETING].value,
            self._worker,
            self._lease_s,
            list(linked),
            list(linked.values()),
            [item_id not in fresh for item_id in linked],
            sources(Stage.TICKETING),
        )
        ITEMS_CLAIMED.labels(Stage.TICKETING).inc(len(rows))
        return [
            Work(
                claim=Claim(item_id=row["id"], fence=row["fence"]),
                ticket_id=row["ticket_id"],
                dest_path=self._dest_path(row["ticket_id"]),
                track_name=row["track_name"],
                main_artist=row["main_artist"] or row["artist_name"],
                priority=row["priority"],
                resumed=row["resumed"],
            )
            for row in sorted(rows, key=lambda row: (row["priority"], row["seq"]))
        ]

    async def keep(self, work: Work, *, for_s: float) -> bool:
        """Make the claim last this long from now; False when the item is no longer ours."""
        async with self._database.connection() as connection:
            done = await connection.execute(_KEEP, work.claim.item_id, work.claim.fence, for_s)
        return bool(done == "UPDATE 1")

    async def record(self, work: Work, *, torrentino_id: str, priority: int) -> bool:
        """Note the ticket that Torrentino made; False when the item is no longer ours."""
        async with self._database.transaction() as connection:
            moved = await connection.execute(
                _RECORD_ITEM,
                work.claim.item_id,
                work.claim.fence,
                Stage.SEARCHING.value,
                STATUS_OF[Stage.SEARCHING].value,
                torrentino_id,
                sources(Stage.SEARCHING),
            )
            if moved != "UPDATE 1":
                return False
            reached("ticketer.recording")
            opened = await connection.execute(
                _RECORD_TICKET, work.ticket_id, torrentino_id, priority
            )
            assert opened == "UPDATE 1", "the intent of a held item is nobody else's to end"
            return True

    async def superseded(self, work: Work, *, torrentino_id: str) -> bool:
        """Whether this intent has ended, or has led to another ticket than this one."""
        async with self._database.connection() as connection:
            return bool(await connection.fetchval(_SUPERSEDED, work.ticket_id, torrentino_id))


_RECORD_ITEM = """
UPDATE queue_items
   SET stage = $3, status = $4, torrentino_ticket_id = $5, lease_until = NULL, lease_owner = NULL,
       actor = 'ticketer', reason = 'Torrentino has the ticket', updated_at = now()
 WHERE id = $1 AND fence = $2 AND stage = ANY($6)
"""

_RECORD_TICKET = """
UPDATE tickets
   SET torrentino_id = $2, priority = $3, state = 'open', progressed_at = now(),
       next_poll_at = now()
 WHERE id = $1 AND state = 'intent'
"""

_SUPERSEDED = """
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE id = $1 AND (state = 'closed' OR torrentino_id <> $2))
"""

_CLOSE_INTENT = """
UPDATE tickets SET state = 'closed', closed_at = now(), remote_state = 'refused'
 WHERE id = $1 AND state = 'intent'
"""


async def close_intent(connection: Connection, ticket_id: str) -> None:
    """Drop an intent that certainly led to no ticket."""
    await connection.execute(_CLOSE_INTENT, ticket_id)
