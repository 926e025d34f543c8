"""What the poller reads and writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from shared.db.pool import Connection, Database, Row
from shared.states import REMOTE, STATUS_OF, Stage, sources
from shared.torrentino.model import RemoteTicket

ACTOR = "poller"
# How long a poller may take over a claimed ticket before another one looks at it too: harmless,
# and what a look that was cut short costs.
_CLAIM_S = 10.0


@dataclass(frozen=True, kw_only=True)
class OpenTicket:
    """A ticket that is due to be looked at."""

    id: str
    torrentino_id: str | None
    dest_path: str
    withdrawing: bool
    info_hash: str | None
    # Since when the withdrawn ticket has been seen at rest, if it has.
    at_rest_since: datetime | None
    progressed_at: datetime
    # Its `next_poll_at` since the claim. Another value means that a hint came while we looked, and
    # what we saw may be older than what it told of: then it stays due.
    claimed_until: datetime
    now: datetime


_CLAIM = """
UPDATE tickets SET next_poll_at = now() + make_interval(secs => $1)
 WHERE id = ANY(ARRAY(
       SELECT id FROM tickets
        WHERE state IN ('open', 'withdrawing') AND next_poll_at <= now()
        ORDER BY next_poll_at
        LIMIT 500
          FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id, torrentino_id, dest_path, state, info_hash, withdrawn_at, progressed_at,
          next_poll_at, now() AS now
"""

_HASTEN = """
UPDATE tickets SET next_poll_at = now()
 WHERE state IN ('open', 'withdrawing') AND next_poll_at > now()
   AND ($1::text[] IS NULL OR torrentino_id = ANY($1))
"""

_PUT_OFF = """
UPDATE tickets SET next_poll_at = now() + make_interval(secs => $2)
 WHERE id = ANY($1) AND state IN ('open', 'withdrawing')
"""

# Progress is what shows that something happens: another state, another torrent, more per cent.
_OBSERVE = """
UPDATE tickets
   SET progressed_at = CASE WHEN (remote_state, info_hash, progress_pct)
                                 IS DISTINCT FROM ($2, coalesce($3, info_hash), $4)
                            THEN now() ELSE progressed_at END,
       remote_state = $2, info_hash = coalesce($3, info_hash), progress_pct = $4, speed_bps = $5,
       eta_s = $6, size_bytes = coalesce($7, size_bytes), remote_reason = $8, candidates = $9,
       next_poll_at = CASE WHEN next_poll_at = $11 THEN now() + make_interval(secs => $10)
                           ELSE next_poll_at END
 WHERE id = $1 AND state IN ('open', 'withdrawing')
RETURNING progressed_at, now() AS now
"""

_CLOSE = """
UPDATE tickets
   SET state = 'closed', closed_at = now(), remote_state = $2, remote_reason = $3,
       files_placed = $4, final_size_bytes = $5, speed_bps = NULL, eta_s = NULL,
       progress_pct = CASE WHEN $2 = 'completed' THEN 100 ELSE progress_pct END
 WHERE id = $1 AND state IN ('open', 'withdrawing')
"""

_WITHDRAW = """
UPDATE tickets SET state = 'withdrawing', withdrawn_at = NULL, next_poll_at = now()
 WHERE id = $1 AND state = 'open'
"""

_AT_REST = """
UPDATE tickets
   SET withdrawn_at = CASE WHEN $2 THEN coalesce(withdrawn_at, now()) END,
       next_poll_at = now() + make_interval(secs => $3)
 WHERE id = $1 AND state = 'withdrawing'
"""

_MOVE_ITEMS = """
UPDATE queue_items
   SET stage = $2, status = $3, reason = $4, actor = 'poller',
       due_at = now() + make_interval(secs => $5), updated_at = now()
 WHERE ticket_id = $1 AND stage = ANY($6)
"""

_ITEMS = "SELECT id FROM queue_items WHERE ticket_id = $1 AND stage = ANY($2) ORDER BY seq"

# As when a file was found in place while the outcome of asking for a ticket was still unknown.
_WITHDRAW_ORPHANS = """
UPDATE tickets t SET state = 'withdrawing', withdrawn_at = NULL, next_poll_at = now()
 WHERE t.state IN ('intent', 'open')
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id AND q.status IN ('PENDING', 'DOWNLOADING'))
"""

_IS_WANTED = "SELECT EXISTS (SELECT 1 FROM tickets WHERE info_hash = $1 AND state = 'open')"

_KNOWN = """
SELECT dest_path, torrentino_id, state FROM tickets
 WHERE dest_path = ANY($1)
"""


def _ticket(row: Row) -> OpenTicket:
    return OpenTicket(
        id=row["id"],
        torrentino_id=row["torrentino_id"],
        dest_path=row["dest_path"],
        withdrawing=row["state"] == "withdrawing",
        info_hash=row["info_hash"],
        at_rest_since=row["withdrawn_at"],
        progressed_at=row["progressed_at"],
        claimed_until=row["next_poll_at"],
        now=row["now"],
    )


class Store:
    """The poller's side of the tickets; each write concerns one ticket and its items."""

    def __init__(self, database: Database, *, poll_interval_s: float) -> None:
        self.database = database
        self._poll_interval_s = poll_interval_s

    async def claim(self) -> list[OpenTicket]:
        """The tickets that are due to be looked at, kept from other pollers for a while."""
        async with self.database.connection() as connection:
            return [_ticket(row) for row in await connection.fetch(_CLAIM, _CLAIM_S)]

    async def hasten(self, torrentino_ids: Collection[str] | None) -> int:
        """Make these tickets (None: all) due now, for Torrentino hinted that they changed."""
        ids = None if torrentino_ids is None else list(torrentino_ids)
        async with self.database.connection() as connection:
            done: str = await connection.execute(_HASTEN, ids)
        return int(done.rsplit(maxsplit=1)[-1])

    async def put_off(self, tickets: Collection[OpenTicket], *, delay_s: float) -> None:
        """Look at these later; nothing is known about them."""
        async with self.database.connection() as connection:
            await connection.execute(_PUT_OFF, [ticket.id for ticket in tickets], delay_s)

    async def observe(
        self, connection: Connection, ticket: OpenTicket, remote: RemoteTicket
    ) -> float | None:
        """Store what the ticket shows; seconds since its last progress, None if it is closed."""
        row = await connection.fetchrow(
            _OBSERVE,
            ticket.id,
            remote.state,
            remote.info_hash,
            remote.progress_pct,
            remote.speed_bps,
            remote.eta_s,
            remote.size_bytes,
            remote.reason,
            remote.candidates or None,
            self._poll_interval_s,
            ticket.claimed_until,
        )
        return None if row is None else (row["now"] - row["progressed_at"]).total_seconds()

    async def close(
        self, connection: Connection, ticket: OpenTicket, remote: RemoteTicket | None
    ) -> bool:
        """The ticket has ended (None: it is gone). False when it was closed already."""
        done = await connection.execute(
            _CLOSE,
            ticket.id,
            "gone" if remote is None else remote.state,
            None if remote is None else remote.reason,
            None if remote is None else remote.files_placed,
            None if remote is None else remote.final_size_bytes,
        )
        return bool(done == "UPDATE 1")

    async def withdraw(self, connection: Connection, ticket: OpenTicket) -> bool:
        """From now on the ticket is to be cancelled until it stays so."""
        done = await connection.execute(_WITHDRAW, ticket.id)
        return bool(done == "UPDATE 1")

    async def at_rest(self, ticket: OpenTicket, *, resting: bool) -> None:
        """Note whether a withdrawn ticket was seen at rest, and look again."""
        async with self.database.connection() as connection:
            await connection.execute(_AT_REST, ticket.id, resting, self._poll_interval_s)

    async def move_items(
        self,
        connection: Connection,
        ticket: OpenTicket,
        stage: Stage,
        *,
        reason: str,
        delay_s: float = 0.0,
    ) -> int:
        """Move the ticket's items, as far as Torrentino has them; returns how many moved."""
        done: str = await connection.execute(
            _MOVE_ITEMS,
            ticket.id,
            stage.value,
            STATUS_OF[stage].value,
            reason,
            delay_s,
            sorted(REMOTE & set(sources(stage))),
        )
        return int(done.rsplit(maxsplit=1)[-1])

    async def items(self, connection: Connection, ticket: OpenTicket) -> list[str]:
        """The items that wait for this ticket."""
        rows = await connection.fetch(_ITEMS, ticket.id, sorted(REMOTE))
        return [row["id"] for row in rows]

    async def withdraw_orphans(self) -> int:
        """Withdraw the tickets that no active item waits for; returns how many."""
        async with self.database.connection() as connection:
            done: str = await connection.execute(_WITHDRAW_ORPHANS)
        return int(done.rsplit(maxsplit=1)[-1])

    async def is_wanted(self, info_hash: str) -> bool:
        """Whether a ticket that we still follow downloads this torrent."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_IS_WANTED, info_hash))

    async def known(self, dest_paths: Collection[str]) -> dict[str, Row]:
        """Our tickets with these paths, by path."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_KNOWN, list(dest_paths))
        return {row["dest_path"]: row for row in rows}
