"""What the poller reads and writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.poller.own_faults import put_off, record_failure
from services.poller.ticket_verdict import Process
from services.poller.watched_time import longest_gap_s, watched
from shared.acquisition.protocol import Begun
from shared.db import download_moves
from shared.db.pool import Connection, Database, Row
from shared.states import POLLED_DOWNLOADS, REMOTE, DownloadState, in_sql
from shared.torrentino.model import RemoteState, RemoteTicket
from shared.tracks import CatalogTrack, WantedTrack

ACTOR = "poller"
# How many intervals a poller may take over a claimed ticket before another one takes it too: that
# is harmless, and what a poll that was cut short costs.
_CLAIM_INTERVALS = 2
_CLAIM_LEAST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class OpenTicket:
    """A ticket that is due to be read."""

    id: str
    torrentino_id: str | None
    dest_path: str
    is_album: bool
    withdrawing: bool
    # Of the torrent that it was last seen to download.
    info_hash: str | None
    # It downloads without a hash, so what it brings may be anything.
    distrusted: bool
    # As it was seen last.
    remote_state: str | None
    # When its pipeline was told which files to place, and how the ticket was dated before.
    process_asked_at: datetime | None
    process_after: str | None
    # The torrents that gave broken audio before, or lack the track, for all of its items.
    blocked: frozenset[str]
    # Since when the withdrawn ticket has been seen at rest, if it has; and since when it shows no
    # progress. Moved on by the time in which it was not read.
    at_rest_since: datetime | None
    # In a row, of what was this ticket's alone.
    failures: int
    progressed_at: datetime
    # Its `next_poll_at` since the claim. Another value means that a hint came meanwhile, and what
    # was read may be older than the hint: then it stays due.
    claimed_until: datetime
    now: datetime

    @property
    def begun(self) -> Begun:
        """As its mode of acquisition knows it."""
        id_, folder, info_hash = self.id, self.dest_path, self.info_hash
        return Begun(id=id_, remote_id=self.torrentino_id, folder=folder, info_hash=info_hash)


# What is due. No poller puts a ticket off for longer than a claim ($1): a time that is further
# ahead was written by a clock that was wrong.
IS_DUE = """(next_poll_at <= now()
             OR next_poll_at > now() + make_interval(secs => $1) + interval '1 minute')"""

_CLAIM = f"""
UPDATE tickets SET next_poll_at = now() + make_interval(secs => $1)
 WHERE id = ANY(ARRAY(
       SELECT id FROM tickets
        WHERE state IN ({in_sql(POLLED_DOWNLOADS)}) AND way = 'tickets' AND {IS_DUE}
        ORDER BY next_poll_at
        LIMIT $2
          FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id, torrentino_id, dest_path, kind, state, info_hash, remote_state, next_poll_at,
          process_asked_at, process_after, failures, now() AS now,
          {watched("progressed_at", gap="$4", interval="$5")} AS progressed_at,
          {watched("withdrawn_at", gap="$4", interval="$5")} AS withdrawn_at,
          ARRAY(SELECT b.info_hash FROM queue_items q JOIN bad_sources b USING (track_id)
                 WHERE q.ticket_id = tickets.id AND q.stage = ANY($3)
                 GROUP BY b.info_hash
                HAVING count(*) = (SELECT count(*) FROM queue_items i
                                    WHERE i.ticket_id = tickets.id AND i.stage = ANY($3))
                ) AS blocked
"""  # noqa: S608 (made of constants)

HASTEN = f"""
UPDATE tickets SET next_poll_at = now()
 WHERE state IN ({in_sql(POLLED_DOWNLOADS)}) AND next_poll_at > now()
   AND ($1::text[] IS NULL OR torrentino_id = ANY($1))
"""  # noqa: S608 (made of constants)

# Progress is what shows that something happens: another state, another torrent, more per cent.
# An info-hash of '' is a torrent that cannot be trusted. While Torrentino searches ($14) nothing
# is known of what comes; title and files are the torrent's, so they go when another one comes.
# Without its client ($15 false) a torrent cannot make progress, and the time does not count.
_OBSERVE = f"""
UPDATE tickets
   SET progressed_at = CASE WHEN (remote_state, info_hash, progress_pct)
                                 IS DISTINCT FROM ($2, coalesce($3, info_hash), $4)
                            THEN now()
                            WHEN NOT $15 THEN progressed_at + (now() - coalesce(looked_at, now()))
                            ELSE {watched("progressed_at", gap="$16", interval="$10")} END,
       looked_at = now(),
       remote_state = $2, progress_pct = $4, speed_bps = $5, failures = 0,
       info_hash = CASE WHEN $14 THEN NULL ELSE coalesce($3, info_hash) END,
       torrent_title = CASE WHEN $14 OR $3 <> info_hash THEN $12
                            ELSE coalesce($12, torrent_title) END,
       file_mappings = CASE WHEN $14 OR $3 <> info_hash THEN $13
                            ELSE coalesce($13, file_mappings) END,
       eta_s = $6, size_bytes = coalesce($7, size_bytes), remote_reason = $8, candidates = $9,
       next_poll_at = CASE WHEN next_poll_at = $11 THEN now() + make_interval(secs => $10)
                           ELSE next_poll_at END
 WHERE id = $1 AND state IN ({in_sql(POLLED_DOWNLOADS)})
RETURNING progressed_at, now() AS now
"""  # noqa: S608 (made of constants)

_SEARCHES = (RemoteState.PENDING, RemoteState.ACQUIRING, RemoteState.PENDING_RETRY)

# Its files were in place before Torrentino forgot which torrent they are of.
_REMEMBER_SOURCE = f"""
UPDATE tickets SET info_hash = $2, torrent_title = coalesce(torrent_title, $3)
 WHERE id = $1 AND state = '{DownloadState.OPEN}' AND info_hash IS NULL
"""  # noqa: S608 (made of constants)

# What was told first decides what "before" is; the time of a lost job starts again.
_PROCESSING = f"""
UPDATE tickets
   SET processed_files = $2, process_after = coalesce(process_after, $3), process_asked_at = now(),
       progressed_at = CASE WHEN $5 THEN now() ELSE progressed_at END
 WHERE id = $1 AND state = '{DownloadState.OPEN}' AND process_asked_at IS NOT DISTINCT FROM $4
"""  # noqa: S608 (made of constants)

_AT_REST = f"""
UPDATE tickets
   SET withdrawn_at = CASE WHEN $2::text IS NULL
                           THEN coalesce({watched("withdrawn_at", gap="$4", interval="$3")}, now())
                           END,
       remote_state = coalesce($2, remote_state), looked_at = now(), failures = 0,
       next_poll_at = now() + make_interval(secs => $3)
 WHERE id = $1 AND state = '{DownloadState.WITHDRAWING}'
"""  # noqa: S608 (made of constants)

_RESTART_STALL_CLOCK = (
    f"UPDATE tickets SET progressed_at = now() WHERE id = $1 AND state = '{DownloadState.OPEN}'"  # noqa: S608 (made of constants)
)

_OTHERS_PROGRESS = f"""
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE state = '{DownloadState.OPEN}' AND way = 'tickets' AND id <> $1
                  AND progressed_at > now() - make_interval(secs => $2))
"""  # noqa: S608 (made of constants)

_FILE_MAPPINGS = "SELECT file_mappings FROM tickets WHERE id = $1"
_PROCESSED_FILES = "SELECT processed_files FROM tickets WHERE id = $1"

_WANTED = """
SELECT id, track_id, track_name, track_number, disc_number FROM queue_items
 WHERE ticket_id = $1 AND stage = ANY($2) ORDER BY seq
"""

_ALBUM_TO_ASK_FOR = """
SELECT q.track_name, q.album_name
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.ticket_id = $1 AND q.stage = ANY($2) AND t.kind = 'track'
   AND q.album_id IS NOT NULL AND q.album_name <> '' AND q.ask_next IS DISTINCT FROM 'track'
"""

_ALBUM_NAME = """
SELECT album_name FROM queue_items WHERE ticket_id = $1 AND album_name <> '' LIMIT 1
"""


def _ticket(row: Row) -> OpenTicket:
    return OpenTicket(
        id=row["id"],
        torrentino_id=row["torrentino_id"],
        dest_path=row["dest_path"],
        is_album=row["kind"] == "album",
        withdrawing=row["state"] == "withdrawing",
        info_hash=row["info_hash"] or None,
        distrusted=row["info_hash"] == "",
        remote_state=row["remote_state"],
        process_asked_at=row["process_asked_at"],
        process_after=row["process_after"],
        blocked=frozenset(row["blocked"]),
        at_rest_since=row["withdrawn_at"],
        failures=row["failures"],
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
        self._gap_s = longest_gap_s(poll_interval_s)

    async def claim(self, *, limit: int) -> list[OpenTicket]:
        """The tickets that are due, kept from other pollers for a while."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _CLAIM, self._claim_s, limit, sorted(REMOTE), self._gap_s, self._poll_interval_s
            )
        return [_ticket(row) for row in rows]

    async def hasten(self, torrentino_ids: Collection[str] | None) -> int:
        """Make these tickets (None: all) due now, for Torrentino hinted that they changed."""
        ids = None if torrentino_ids is None else list(torrentino_ids)
        async with self.database.connection() as connection:
            done: str = await connection.execute(HASTEN, ids)
        return int(done.rsplit(maxsplit=1)[-1])

    async def put_off(self, tickets: Collection[OpenTicket], *, delay_s: float) -> None:
        """Make these due later; nothing is known about them."""
        await put_off(self.database, [each.id for each in tickets], delay_s=delay_s)

    async def failed(self, ticket: OpenTicket, *, reason: str) -> None:
        """It alone could not be read or acted on: each time in a row it waits for longer."""
        await record_failure(
            self.database,
            ticket.id,
            earlier=ticket.failures,
            first_s=self._poll_interval_s,
            reason=reason,
        )

    async def observe(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket,
        *,
        progress_pct: float | None = None,
        may_progress: bool = True,
    ) -> float | None:
        """Store what the ticket shows; watched seconds since its last progress, None if closed.

        `progress_pct` is the torrent's, where the ticket does not tell it. `may_progress`: whether
        the torrent client answers; otherwise the time since the last read does not count.
        """
        row = await connection.fetchrow(
            _OBSERVE,
            ticket.id,
            remote.state,
            "" if remote.empty_hash else remote.info_hash,
            remote.progress_pct if progress_pct is None else progress_pct,
            remote.speed_bps,
            remote.eta_s,
            remote.size_bytes,
            remote.reason,
            remote.candidates or None,
            self._poll_interval_s,
            ticket.claimed_until,
            remote.torrent_title,
            remote.file_mappings or None,
            remote.state in _SEARCHES,
            may_progress,
            self._gap_s,
        )
        return None if row is None else (row["now"] - row["progressed_at"]).total_seconds()

    async def remember_source(self, ticket: OpenTicket, info_hash: str, title: str) -> None:
        """Note the torrent of a ticket that was never seen to download it."""
        async with self.database.connection() as connection:
            await connection.execute(_REMEMBER_SOURCE, ticket.id, info_hash, title)

    async def file_mappings(self, ticket: OpenTicket) -> list[dict[str, Any]]:
        """Which files Torrentino took for which tracks; see `RemoteTicket.file_mappings`."""
        async with self.database.connection() as connection:
            return await connection.fetchval(_FILE_MAPPINGS, ticket.id) or []

    async def processed_files(self, ticket: OpenTicket) -> dict[str, str]:
        """What the pipeline was told to place: new name -> path in the torrent."""
        async with self.database.connection() as connection:
            return await connection.fetchval(_PROCESSED_FILES, ticket.id) or {}

    async def wanted(self, ticket: OpenTicket) -> list[WantedTrack]:
        """The tracks that wait for this ticket."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_WANTED, ticket.id, sorted(REMOTE))
        return [
            WantedTrack(
                item_id=row["id"],
                track=CatalogTrack(
                    id=row["track_id"],
                    title=row["track_name"],
                    number=row["track_number"],
                    disc=row["disc_number"],
                ),
            )
            for row in rows
        ]

    async def album_to_ask_for(self, ticket: OpenTicket) -> tuple[str, str] | None:
        """Title and album of a track's ticket, if a ticket of the album may serve it next.

        Not when that is where it comes from.
        """
        async with self.database.connection() as connection:
            row = await connection.fetchrow(_ALBUM_TO_ASK_FOR, ticket.id, sorted(REMOTE))
        return None if row is None else (row["track_name"], row["album_name"])

    async def album_name(self, ticket: OpenTicket) -> str | None:
        """The name of the album of an album's ticket."""
        async with self.database.connection() as connection:
            name: str | None = await connection.fetchval(_ALBUM_NAME, ticket.id)
        return name

    async def processing(
        self, connection: Connection, ticket: OpenTicket, remote: RemoteTicket, plan: Process
    ) -> bool:
        """Note what the pipeline is about to be told; False when another poller has told it."""
        done = await connection.execute(
            _PROCESSING,
            ticket.id,
            plan.names,
            remote.updated,
            ticket.process_asked_at,
            remote.state != RemoteState.FAILED,
        )
        return bool(done == "UPDATE 1")

    async def close(
        self,
        connection: Connection,
        ticket: OpenTicket,
        remote: RemoteTicket | None,
        *,
        torrent_path: str | None = None,
        size_bytes: int | None = None,
    ) -> bool:
        """The ticket has ended (None: it is gone). False when it was closed already.

        `torrent_path`: its files are collected from there, and not from its own folder.
        `size_bytes`: of the torrent, as its client tells it; a search may have told another.
        """
        return await download_moves.close_ticket(
            connection,
            ticket.id,
            remote_state="gone" if remote is None else remote.state,
            reason=None if remote is None else remote.reason,
            files_placed=None if remote is None else remote.files_placed,
            final_size_bytes=None if remote is None else remote.final_size_bytes,
            torrent_path=torrent_path,
            size_bytes=size_bytes,
        )

    async def withdraw(self, connection: Connection, ticket: OpenTicket) -> bool:
        """From now on the ticket is to be cancelled until it stays so."""
        return bool(await download_moves.withdraw(connection, [ticket.id]))

    async def at_rest(self, ticket: OpenTicket, *, alive_as: str | None) -> None:
        """Note that a withdrawn ticket was seen at rest, or in which state it lives; poll again."""
        async with self.database.connection() as connection:
            await connection.execute(
                _AT_REST, ticket.id, alive_as, self._poll_interval_s, self._gap_s
            )

    async def restart_stall_clock(self, connection: Connection, ticket: OpenTicket) -> None:
        """No progress was possible until now, which is not the ticket's fault."""
        await connection.execute(_RESTART_STALL_CLOCK, ticket.id)

    async def others_progress(
        self, connection: Connection, ticket: OpenTicket, *, within_s: float
    ) -> bool:
        """Whether another of our tickets has made progress in that time."""
        return bool(await connection.fetchval(_OTHERS_PROGRESS, ticket.id, within_s))
