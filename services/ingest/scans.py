"""Starting scans and showing how far they are."""

from __future__ import annotations

from typing import Any, TypeAlias

from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.pool import Database
from shared.db.scans import cancel, parse_order, start
from shared.errors import Unknown
from shared.untrusted import token

Json: TypeAlias = dict[str, Any]

_REPORT = """
SELECT id, queue, scope, max_items, state, problem, total, scanned, present, active, missing,
       unrecorded, queued, sample,
       extract(epoch FROM created_at)::bigint AS created_at,
       extract(epoch FROM started_at)::bigint AS started_at,
       extract(epoch FROM finished_at)::bigint AS finished_at,
       (extract(epoch FROM coalesce(finished_at, now()) - started_at) * 1000)::bigint
           AS duration_ms
  FROM scans WHERE id = $1
"""


class Scans:
    """The API's side of the scans."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    async def start(self, body: Json, *, queue: bool, user_id: str) -> str:
        """Order a scan; returns its id.

        Raises:
            InvalidRequest: the body is no order.
            Conflict: another scan has not ended.
        """
        order = parse_order(body)
        scan_id = await start(self._database, order, queue=queue, requested_by=user_id)
        reached("ingest.scan_ordered")
        await self._bus.wake("scan")
        return scan_id

    async def cancel(self, scan_id: str, *, user_id: str) -> Json:
        """End a scan; its report.

        Raises:
            InvalidRequest, Unknown: there is none with this id.
            Conflict: it has ended.
        """
        token(scan_id, what="scan id")
        await cancel(self._database, scan_id, by=user_id)
        return await self.report(scan_id)

    async def report(self, scan_id: str) -> Json:
        """How far a scan is and what it found so far.

        Raises:
            InvalidRequest, Unknown: there is none with this id.
        """
        token(scan_id, what="scan id")
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_REPORT, scan_id)
        if row is None:
            raise Unknown(f"there is no scan {scan_id[:80]!r}")
        return {
            "scan_id": row["id"],
            "mode": "queue" if row["queue"] else "dry_run",
            "scope": row["scope"],
            "limit": row["max_items"] or None,
            "state": row["state"],
            "problem": row["problem"],
            "total": row["total"],
            "scanned": row["scanned"],
            "present": row["present"],
            "in_queue": row["active"],
            "missing": row["missing"],
            "unrecorded": row["unrecorded"],
            "queued": row["queued"],
            "sample": row["sample"],
            "limit_reached": bool(row["max_items"]) and row["missing"] >= row["max_items"],
            "is_clean": row["state"] == "done" and row["missing"] == 0,
            "created_at": row["created_at"],
            "started_at": row["started_at"],
            "finished_at": row["finished_at"],
            "duration_ms": row["duration_ms"],
        }
