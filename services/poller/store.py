"""What the poller reads and writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from shared.db.pool import Connection, Database, Row
from shared.states import REMOTE, STATUS_OF, Stage, sources
from shared.torrentino.model import RemoteTicket

ACTOR = "poller"
# How many intervals a poller may take over a claimed ticket before another one looks at it too:
# harmless, and what a look that was cut short costs.
_CLAIM_INTERVALS = 2
_CLAIM_LEAST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class OpenTicket:
    """A ticket that is due to be looked at."""

    id: str
    torrentino_id: str | None
    dest_path: str
    withdrawing: bool
    info_hash: str | None
    # As it was seen last.
    remote_state: str | None
    # The torrents that gave broken audio for its track before.
    blocked: frozenset[str]
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
        LIMIT $2
          FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id, torrentino_id, dest_path, state, info_hash, remote_state, withdrawn_at,
          progressed_at, next_poll_at, now() AS now,
          ARRAY(SELECT b.info_hash FROM queue_items q JOIN bad_sources b USING (track_id)
                 WHERE q.ticket_id = tickets.id) AS blocked
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
   SET withdrawn_at = CASE WHEN $2::text IS NULL THEN coalesce(withdrawn_at, now()) END,
       remote_state = coalesce($2, remote_state),
       next_poll_at = now() + make_interval(secs => $3)
 WHERE id = $1 AND state = 'withdrawing'
"""

# Its folder, if it was removed already, may be there again.
_REOPEN = """
UPDATE tickets
   SET state = 'withdrawing', torrentino_id = $2, withdrawn_at = NULL, closed_at = NULL,
       collected_at = NULL, next_poll_at = now()
 WHERE dest_path = $1 AND state = 'closed' AND coalesce(torrentino_id, $2) = $2
"""

_RESTART_STALL_CLOCK = "UPDATE tickets SET progressed_at = now() WHERE id = $1 AND state = 'open'"

_OTHERS_PROGRESS = """
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE state = 'open' AND id <> $1
                  AND progressed_at > now() - make_interval(secs => $2))
"""

_MOVE_ITEMS = """
UPDATE queue_items
   SET stage = $2, status = $3, reason = $4, actor = 'poller',
       due_at = now() + make_interval(secs => $5), updated_at = now()
 WHERE ticket_id = $1 AND stage = ANY($6)
"""

_DETOURS = "SELECT coalesce(max(detours), 0) FROM queue_items WHERE ticket_id = $1"

_ASK_AGAIN = """
UPDATE queue_items
   SET stage = $2, status = $3, reason = $4, actor = 'poller', detours = detours + 1,
       due_at = now() + make_interval(secs => $5), updated_at = now()
 WHERE ticket_id = $1 AND stage = ANY($6)
"""

# What is downloaded next is another torrent, of which nothing has been seen yet.
_FORGET_SOURCE = """
UPDATE tickets SET info_hash = NULL WHERE id = $1 AND state = 'open'
"""

_ITEMS = "SELECT id FROM queue_items WHERE ticket_id = $1 AND stage = ANY($2) ORDER BY seq"

# As when a file was found in place while the outcome of asking for a ticket was still unknown.
_WITHDRAW_ORPHANS = """
UPDATE tickets t SET state = 'withdrawing', withdrawn_at = NULL, next_poll_at = now()
 WHERE t.state IN ('intent', 'open')
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id AND q.status IN ('PENDING', 'DOWNLOADING'))
"""

_IS_WANTED = """
SELECT EXISTS (SELECT 1 FROM tickets WHERE info_hash = $1 AND state = 'open' AND id <> $2)
"""

_BAD_TORRENTS = """
SELECT DISTINCT b.info_hash FROM bad_sources b
 WHERE b.removed_at IS NULL
   AND NOT EXISTS (SELECT 1 FROM tickets t WHERE t.info_hash = b.info_hash AND t.state = 'open')
 LIMIT 20
"""

_BAD_TORRENT_REMOVED = """
UPDATE bad_sources SET removed_at = now() WHERE info_hash = $1 AND removed_at IS NULL
"""

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
        remote_state=row["remote_state"],
        blocked=frozenset(row["blocked"]),
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
        self._claim_s = max(_CLAIM_LEAST_S, _CLAIM_INTERVALS * poll_interval_s)

    async def claim(self, *, limit: int) -> list[OpenTicket]:
        """The tickets that are due to be looked at, kept from other pollers for a while."""
        async with self.database.connection() as connection:
            return [_ticket(row) for row in await connection.fetch(_CLAIM, self._claim_s, limit)]

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

    async def at_rest(self, ticket: OpenTicket, *, alive_as: str | None) -> None:
        """Note that a withdrawn ticket was seen at rest, or in which state it lives; look again."""
        async with self.database.connection() as connection:
            await connection.execute(_AT_REST, ticket.id, alive_as, self._poll_interval_s)

    async def reopen(self, stray: RemoteTicket) -> bool:
        """Withdraw a ticket whose row was closed too early; False when the row is another's."""
        async with self.database.connection() as connection:
            done = await connection.execute(_REOPEN, stray.dest_path, stray.id)
        return bool(done == "UPDATE 1")

    async def restart_stall_clock(self, connection: Connection, ticket: OpenTicket) -> None:
        """Nothing could progress until now, which is not the ticket's fault."""
        await connection.execute(_RESTART_STALL_CLOCK, ticket.id)

    async def others_progress(
        self, connection: Connection, ticket: OpenTicket, *, within_s: float
    ) -> bool:
        """Whether another ticket of ours has moved in that time."""
        return bool(await connection.fetchval(_OTHERS_PROGRESS, ticket.id, within_s))

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

    async def ask_again(
        self, connection: Connection, ticket: OpenTicket, *, reason: str, delay_s: float
    ) -> None:
        """Queue the ticket's items for another one: a detour more, no attempt less."""
        await connection.execute(
            _ASK_AGAIN,
            ticket.id,
            Stage.QUEUED.value,
            STATUS_OF[Stage.QUEUED].value,
            reason,
            delay_s,
            sorted(REMOTE & set(sources(Stage.QUEUED))),
        )

    async def detours(self, connection: Connection, ticket: OpenTicket) -> int:
        """How many tickets in a row have led its items nowhere before this one."""
        return int(await connection.fetchval(_DETOURS, ticket.id))

    async def items(self, connection: Connection, ticket: OpenTicket) -> list[str]:
        """The items that wait for this ticket."""
        rows = await connection.fetch(_ITEMS, ticket.id, sorted(REMOTE))
        return [row["id"] for row in rows]

    async def withdraw_orphans(self) -> int:
        """Withdraw the tickets that no active item waits for; returns how many."""
        async with self.database.connection() as connection:
            done: str = await connection.execute(_WITHDRAW_ORPHANS)
        return int(done.rsplit(maxsplit=1)[-1])

    async def is_wanted(self, info_hash: str, *, but: str = "") -> bool:
        """Whether a ticket (`but` this one) that we still follow downloads this torrent."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_IS_WANTED, info_hash, but))

    async def forget_source(self, connection: Connection, ticket: OpenTicket) -> None:
        """The ticket goes on with another torrent than the one that we have seen."""
        await connection.execute(_FORGET_SOURCE, ticket.id)

    async def bad_torrents(self) -> list[str]:
        """Blocked torrents that may still lie in Torrentino's client and that no ticket needs."""
        async with self.database.connection() as connection:
            return [row["info_hash"] for row in await connection.fetch(_BAD_TORRENTS)]

    async def bad_torrent_removed(self, info_hash: str) -> None:
        """Note that the torrent is out of the client, or never can be taken out."""
        async with self.database.connection() as connection:
            await connection.execute(_BAD_TORRENT_REMOVED, info_hash)

    async def known(self, dest_paths: Collection[str]) -> dict[str, Row]:
        """Our tickets with these paths, by path."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_KNOWN, list(dest_paths))
        return {row["dest_path"]: row for row in rows}
