"""What the poller reads and writes of direct downloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.poller.own_faults import put_off, record_failure
from services.poller.store import IS_DUE
from services.poller.watched_time import longest_gap_s, watched
from shared.db import download_moves
from shared.db.download_moves import LostTorrent
from shared.db.identity import installation_id
from shared.db.pool import Connection, Database, Row
from shared.states import (
    COLLECTING,
    POLLED_DOWNLOADS,
    SERVING_DOWNLOADS,
    DownloadState,
    in_sql,
)
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()

ACTOR = "poller"
# How many intervals a poller may take over what it claimed before another one takes it too.
_CLAIM_INTERVALS = 2
_CLAIM_LEAST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Download:
    """A direct download that is due to be read."""

    id: str
    withdrawing: bool
    info_hash: str | None
    title: str
    ours: bool
    # It may have been added since then, and by which hash is not known yet.
    adding_at: datetime | None
    hashes_before: frozenset[str] | None
    size_bytes: int | None
    # What the client said last.
    state: str | None
    whole_at: datetime | None
    # Moved on by the time in which no poller could read the client, as `adding_at`.
    missing_at: datetime | None
    # In a row, of what was this download's alone.
    failures: int
    progressed_at: datetime
    now: datetime

    @property
    def idle_s(self) -> float:
        """Watched seconds without progress."""
        return (self.now - self.progressed_at).total_seconds()


_CLAIM = f"""
UPDATE tickets SET next_poll_at = now() + make_interval(secs => $1)
 WHERE id = ANY(ARRAY(
       SELECT id FROM tickets
        WHERE state IN ({in_sql(POLLED_DOWNLOADS)}) AND way = 'direct' AND {IS_DUE}
        ORDER BY next_poll_at
        LIMIT $2
          FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id, state, info_hash, torrent_title, ours, hashes_before, size_bytes, remote_state,
          whole_at, failures, now() AS now,
          {watched("adding_at", gap="$3", interval="$4")} AS adding_at,
          {watched("missing_at", gap="$3", interval="$4")} AS missing_at,
          {watched("progressed_at", gap="$3", interval="$4")} AS progressed_at
"""  # noqa: S608 (made of constants)

_ANY = f"""
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE state IN ({in_sql(POLLED_DOWNLOADS)}) AND way = 'direct' AND {IS_DUE})
"""  # noqa: S608 (made of constants)

# A download that waits for its turn is not idle.
_OBSERVE = f"""
UPDATE tickets
   SET progressed_at = CASE WHEN $2 = 'queued' OR $2 = 'checking' OR $3 > coalesce(progress_pct, 0)
                                 OR coalesce($6, 0) > 0 AND coalesce(size_bytes_seen, 0) = 0
                            THEN now()
                            ELSE {watched("progressed_at", gap="$10", interval="$8")} END,
       looked_at = now(),
       size_bytes_seen = coalesce(nullif($6, 0), size_bytes_seen),
       size_bytes = coalesce(nullif($6, 0), size_bytes),
       remote_state = $2, progress_pct = $3, speed_bps = $4, eta_s = $5, seeders = $9, failures = 0,
       whole_at = CASE WHEN $7 THEN coalesce(whole_at, now()) END, missing_at = NULL,
       hashes_before = NULL,
       next_poll_at = now() + make_interval(secs => $8)
 WHERE id = $1 AND state = '{DownloadState.OPEN}'
"""  # noqa: S608 (made of constants)

_MISSING = f"""
UPDATE tickets
   SET missing_at = coalesce({watched("missing_at", gap="$3", interval="$2")}, now()),
       progressed_at = {watched("progressed_at", gap="$3", interval="$2")},
       adding_at = CASE WHEN adding_at IS NOT NULL
                        THEN least({watched("adding_at", gap="$3", interval="$2")}, now()) END,
       looked_at = now(), whole_at = NULL,
       next_poll_at = now() + make_interval(secs => $2)
 WHERE id = $1 AND state IN ({in_sql(POLLED_DOWNLOADS)})
"""  # noqa: S608 (made of constants)

_ENDED_SO_BEFORE = """
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE info_hash = $1 AND way = 'direct' AND id <> $2 AND remote_state = $3
                  AND closed_at > now() - interval '1 day')
"""

_IDENTIFIED = f"""
UPDATE tickets SET info_hash = $2, next_poll_at = now()
 WHERE id = $1 AND state IN ({in_sql(POLLED_DOWNLOADS)})
   AND NOT EXISTS (SELECT 1 FROM tickets o WHERE o.info_hash = $2 AND o.id <> $1)
"""  # noqa: S608 (made of constants)

# Items still wait for it, or collect from it, by any of our downloads; or a ticket does.
_NEEDED = f"""
EXISTS (SELECT 1 FROM tickets n
         WHERE n.info_hash = t.info_hash
           AND (n.state IN ({in_sql(SERVING_DOWNLOADS)})
                OR EXISTS (SELECT 1 FROM queue_items q
                            WHERE q.ticket_id = n.id
                              AND q.stage IN ({in_sql(COLLECTING)}))))
"""  # noqa: S608 (made of constants)

# Ours, at the client, and done with: no item waits for it or collects from it, nor will one for
# whose track it is not blocked. What has brought a file goes only where all goes ($1).
_DONE_WITH = f"""
SELECT t.info_hash
  FROM tickets t
 WHERE t.way = 'direct' AND t.ours AND t.removed_at IS NULL AND t.state = '{DownloadState.CLOSED}'
   AND t.info_hash IS NOT NULL
   AND NOT {_NEEDED}
   AND NOT EXISTS (SELECT 1 FROM tickets o JOIN queue_items w ON w.ticket_id = o.id
                    WHERE o.info_hash = t.info_hash AND w.status IN ('PENDING', 'DOWNLOADING')
                      AND NOT EXISTS (SELECT 1 FROM blocklist b
                                       WHERE b.track_id = w.track_id
                                         AND b.info_hash = t.info_hash))
 GROUP BY t.info_hash
HAVING $1 OR NOT EXISTS (SELECT 1 FROM tickets b WHERE b.info_hash = t.info_hash AND b.brought)
 LIMIT 20
"""  # noqa: S608 (made of constants)

_KNOWN = "SELECT id FROM tickets WHERE id = ANY($1)"

_REMOVED = f"""
UPDATE tickets SET removed_at = now()
 WHERE info_hash = $1 AND way = 'direct' AND removed_at IS NULL AND state = '{DownloadState.CLOSED}'
"""  # noqa: S608 (made of constants)


class TorrentsStore:
    """The poller's side of direct downloads; each write concerns one download and its items."""

    def __init__(self, database: Database, *, poll_interval_s: float) -> None:
        self.database = database
        self._poll_interval_s = poll_interval_s
        self._claim_s = max(_CLAIM_LEAST_S, _CLAIM_INTERVALS * poll_interval_s)
        self._gap_s = longest_gap_s(poll_interval_s)

    async def is_due(self) -> bool:
        """Whether any download is due."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_ANY, self._claim_s))

    async def claim(self, *, limit: int) -> list[Download]:
        """The downloads that are due, kept from other pollers for a while."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _CLAIM, self._claim_s, limit, self._gap_s, self._poll_interval_s
            )
        return [_download(row) for row in rows]

    async def put_off(self, downloads: Collection[Download], *, delay_s: float) -> None:
        """Make these due later; nothing is known about them."""
        await put_off(self.database, [each.id for each in downloads], delay_s=delay_s)

    async def failed(self, download: Download, *, reason: str) -> None:
        """It alone could not be read or acted on: each time in a row it waits for longer."""
        await record_failure(
            self.database,
            download.id,
            earlier=download.failures,
            first_s=self._poll_interval_s,
            reason=reason,
        )

    async def observe(
        self, connection: Connection, download: Download, torrent: RemoteTorrent
    ) -> bool:
        """Store what the client shows; False when the download is not open any more."""
        done = await connection.execute(
            _OBSERVE,
            download.id,
            torrent.state,
            100 * min(torrent.progress, 1.0) if torrent.state != "checking" else 0.0,
            torrent.speed_bps,
            torrent.eta_s,
            torrent.size_bytes,
            torrent.whole,
            self._poll_interval_s,
            torrent.seeders,
            self._gap_s,
        )
        return bool(done == "UPDATE 1")

    async def missing(self, connection: Connection, download: Download) -> None:
        """The client does not show it; read it again."""
        await connection.execute(_MISSING, download.id, self._poll_interval_s, self._gap_s)

    async def close(
        self,
        connection: Connection,
        download: Download,
        *,
        how: str,
        reason: str | None = None,
        torrent_path: str | None = None,
    ) -> bool:
        """The download has ended; False when it was closed already."""
        return await download_moves.close_torrent(
            connection, download.id, how=how, reason=reason, torrent_path=torrent_path
        )

    async def ended_so_before(
        self, connection: Connection, download: Download, *, how: str
    ) -> bool:
        """Whether a download of this torrent has ended like this before, within a day."""
        return bool(
            await connection.fetchval(_ENDED_SO_BEFORE, download.info_hash, download.id, how)
        )

    async def withdraw_orphans(self) -> int:
        """Withdraw the downloads that no active item waits for; returns how many."""
        async with self.database.connection() as connection:
            return await download_moves.withdraw_unwanted(connection, None, mode="direct")

    async def identified(self, download: Download, info_hash: str) -> bool:
        """Which torrent a download has put there; False: it is another download's."""
        async with self.database.connection() as connection:
            done = await connection.execute(_IDENTIFIED, download.id, info_hash)
        return bool(done == "UPDATE 1")

    async def done_with(self, *, also_brought: bool) -> list[str]:
        """Our torrents that are not needed; `also_brought`: those that brought a file as well."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_DONE_WITH, also_brought)
        return [row["info_hash"] for row in rows]

    async def record_lost(self, there: Callable[[str], Awaitable[dict[str, RemoteTorrent]]]) -> int:
        """Record torrents of ours of which there is no row, as done with; how many.

        `there` gives the torrents that are in the folders of an installation.
        """
        async with self.database.connection() as connection:
            ours = await installation_id(connection)
        found = await there(ours)
        # The rows are read after the list, so that what is added in between is not lost.
        async with self.database.transaction() as connection:
            rows = await connection.fetch(_KNOWN, list(found))
            known = {row["id"] for row in rows}
            lost = [
                LostTorrent(download_id=id_, info_hash=each.info_hash, whole=each.whole)
                for id_, each in found.items()
                if id_ not in known and each.info_hash is not None
            ]
            await download_moves.record_lost_torrents(connection, lost)
        if lost:
            log.warning("torrents_without_a_row", info_hashes=[each.info_hash for each in lost])
        return len(lost)

    async def removed(self, info_hash: str) -> None:
        """Note that the client does not have it any more."""
        async with self.database.connection() as connection:
            await connection.execute(_REMOVED, info_hash)


def _download(row: Row) -> Download:
    before = row["hashes_before"]
    return Download(
        id=row["id"],
        withdrawing=row["state"] == "withdrawing",
        info_hash=row["info_hash"],
        title=row["torrent_title"] or "the release",
        ours=bool(row["ours"]),
        adding_at=row["adding_at"],
        hashes_before=None if before is None else frozenset(before),
        size_bytes=row["size_bytes"],
        state=row["remote_state"],
        whole_at=row["whole_at"],
        missing_at=row["missing_at"],
        failures=row["failures"],
        progressed_at=row["progressed_at"],
        now=row["now"],
    )
