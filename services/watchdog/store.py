"""The watchdog's own SQL."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from shared.db.albums import known_albums
from shared.db.pool import Connection, Database
from shared.db.presence import Known, Notes, known, note
from shared.errors import Stale
from shared.events import ScanOrder
from shared.states import ScanState, allowed_from

Json: TypeAlias = dict[str, Any]

# What the watchdog is called in the history of an item.
ACTOR = "watchdog"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A claimed scan; `after_rowid` is its position in the catalog."""

    id: str
    fence: int
    queue: bool
    order: ScanOrder
    max_items: int
    after_rowid: int
    missing: int
    # This is its first claim.
    fresh: bool = False


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What one page of the catalog added."""

    scanned: int
    present: int
    active: int
    missing: int
    unrecorded: int
    queued: int = 0
    to_adopt: int = 0
    broken: int = 0
    refused: int = 0
    sample: list[Json] = field(default_factory=list)


class ScanLost(Stale):
    """Another watchdog has the scan, or it has ended."""


def _lost(scan: Scan) -> ScanLost:
    return ScanLost(f"scan {scan.id} has another fence or has ended")


_CLAIM = """
UPDATE scans
   SET state = $2, fence = new_fence(), started_at = coalesce(started_at, now()),
       lease_until = now() + make_interval(secs => $1)
 WHERE id = (SELECT id FROM scans
              WHERE state = ANY($3) OR (state = $2 AND lease_until <= now())
              ORDER BY created_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id, fence, queue, scope, max_items, after_rowid, missing, started_at = now() AS fresh
"""

_TOTAL = "UPDATE scans SET total = $3 WHERE id = $1 AND fence = $2"

# A sample of fifty is enough: the report has the counts.
_PROGRESS = """
UPDATE scans
   SET after_rowid = $3, scanned = scanned + $4, present = present + $5, active = active + $6,
       missing = missing + $7, unrecorded = unrecorded + $8, queued = queued + $9,
       sample = CASE WHEN jsonb_array_length(sample) >= 50 THEN sample ELSE sample || $10 END,
       lease_until = now() + make_interval(secs => $11), problem = NULL,
       to_adopt = to_adopt + $13, broken = broken + $14, refused = refused + $15
 WHERE id = $1 AND fence = $2 AND state = $12
"""

_ADOPTED = """
UPDATE scans SET adopted = adopted + 1 WHERE id = $1 AND fence = $2 AND state = $3
"""

_RENEW = """
UPDATE scans SET lease_until = now() + make_interval(secs => $3)
 WHERE id = $1 AND fence = $2 AND state = $4
"""

_WITH_FILES = "SELECT DISTINCT album_id FROM media_files WHERE album_id = ANY($1)"

_PROBLEMS_AFTER = """
SELECT track_id FROM presence_problems WHERE track_id > $1 ORDER BY track_id LIMIT 1000
"""

_END = """
UPDATE scans SET state = $3, problem = $4, finished_at = now(), lease_until = NULL
 WHERE id = $1 AND fence = $2 AND state = ANY($5)
"""

_PAUSE = """
UPDATE scans SET lease_until = now() + make_interval(secs => $3), problem = $4
 WHERE id = $1 AND fence = $2 AND state = $5
"""

_ACTIVE = """
SELECT track_id FROM queue_items
 WHERE track_id = ANY($1) AND status IN ('PENDING', 'DOWNLOADING')
"""


class Store:
    """Reads and writes scans, and what they compare the catalog with."""

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self.database = database
        self._lease_s = lease_s

    async def claim(self) -> Scan | None:
        """Claim the scan that waits, or a running one whose lease has run out."""
        async with self.database.connection() as connection:
            row = await connection.fetchrow(
                _CLAIM, self._lease_s, ScanState.RUNNING, allowed_from(ScanState.RUNNING)
            )
        if row is None:
            return None
        return Scan(
            id=row["id"],
            fence=row["fence"],
            queue=row["queue"],
            order=ScanOrder.model_validate(row["scope"]),
            max_items=row["max_items"],
            after_rowid=row["after_rowid"],
            missing=row["missing"],
            fresh=row["fresh"],
        )

    async def known(self, track_ids: Sequence[str]) -> tuple[Known, set[str]]:
        """What is recorded of these tracks, and which of them are in the queue."""
        async with self.database.connection() as connection:
            found = await known(connection, track_ids)
            rows = await connection.fetch(_ACTIVE, list(track_ids))
        return found, {row["track_id"] for row in rows}

    async def albums_with_files(self, album_ids: Sequence[str]) -> set[str]:
        """Those of these albums of which the ledger has a file."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_WITH_FILES, list(album_ids))
        return {row["album_id"] for row in rows}

    async def adopted(self, connection: Connection, scan: Scan) -> None:
        """Count a file that this transaction records.

        Raises:
            ScanLost: another watchdog has the scan, or it was cancelled.
        """
        done = await connection.execute(_ADOPTED, scan.id, scan.fence, ScanState.RUNNING)
        if done != "UPDATE 1":
            raise _lost(scan)

    async def keep_lease(self, scan: Scan) -> None:
        """Renew the scan's lease until this is cancelled.

        Raises:
            ScanLost: another watchdog has the scan, or it was cancelled.
            DependencyDown: PostgreSQL is away.
        """
        while True:
            await asyncio.sleep(self._lease_s / 3)
            async with self.database.connection() as connection:
                done = await connection.execute(
                    _RENEW, scan.id, scan.fence, self._lease_s, ScanState.RUNNING
                )
            if done != "UPDATE 1":
                raise _lost(scan)

    async def problems_after(self, track_id: str) -> list[str]:
        """The next tracks with a presence problem, by their ids; at most 1,000."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_PROBLEMS_AFTER, track_id)
        return [row["track_id"] for row in rows]

    async def forget_problems(self, track_ids: Collection[str]) -> None:
        """Delete the presence problems of tracks that the catalog does not have any more."""
        async with self.database.connection() as connection:
            await note(connection, Notes(forgotten=list(track_ids)))

    async def known_albums(self, album_ids: Collection[str]) -> set[str]:
        """Those of these albums whose tracklist is known."""
        async with self.database.connection() as connection:
            return set(await known_albums(connection, album_ids))

    async def total(self, scan: Scan, rows: int | None) -> None:
        """Record how many tracks the scan covers; None where that is not known."""
        async with self.database.connection() as connection:
            await connection.execute(_TOTAL, scan.id, scan.fence, rows)

    async def progress(
        self, connection: Connection, scan: Scan, after_rowid: int, found: Findings
    ) -> None:
        """Add a page's findings and keep the lease.

        Raises:
            ScanLost: another watchdog has the scan, or it was cancelled.
        """
        done = await connection.execute(
            _PROGRESS,
            scan.id,
            scan.fence,
            after_rowid,
            found.scanned,
            found.present,
            found.active,
            found.missing,
            found.unrecorded,
            found.queued,
            found.sample,
            self._lease_s,
            ScanState.RUNNING,
            found.to_adopt,
            found.broken,
            found.refused,
        )
        if done != "UPDATE 1":
            raise _lost(scan)

    async def end(self, scan: Scan, state: ScanState, problem: str | None = None) -> None:
        """The scan has ended; REFUSED with the problem."""
        async with self.database.connection() as connection:
            await connection.execute(_END, scan.id, scan.fence, state, problem, allowed_from(state))

    async def pause(self, scan: Scan, problem: str | None, *, for_s: float) -> None:
        """Let the scan be claimed again in `for_s`, from its position."""
        async with self.database.connection() as connection:
            await connection.execute(_PAUSE, scan.id, scan.fence, for_s, problem, ScanState.RUNNING)
