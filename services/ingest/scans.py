"""Scans as the API starts, cancels and shows them."""

from __future__ import annotations

from typing import Any, TypeAlias

from services.ingest.store import reports as store
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db.pool import Database
from shared.db.scans import cancel, start
from shared.errors import InvalidRequest, Unknown
from shared.events import ADOPT_OR_QUEUE, parse_order
from shared.untrusted import token

Json: TypeAlias = dict[str, Any]


class Scans:
    """Starts, cancels and shows scans."""

    def __init__(self, database: Database, announcer: Announcer) -> None:
        self._database = database
        self._announcer = announcer

    async def start(self, body: Json, *, queue: bool, user_id: str) -> str:
        """Start a scan; returns its id.

        Raises:
            InvalidRequest: the body is not a scan's.
            Conflict: another scan has not ended.
        """
        order = parse_order(body)
        if queue and order.adopt:
            raise InvalidRequest(ADOPT_OR_QUEUE)
        scan_id = await start(self._database, order, queue=queue, requested_by=user_id)
        reached("ingest.scan_ordered")
        await self._announcer.announce("scan")
        return scan_id

    async def cancel(self, scan_id: str, *, user_id: str) -> Json:
        """Cancel a scan; returns its report.

        Raises:
            InvalidRequest, Unknown: there is none with this id.
            Conflict: it has ended.
        """
        token(scan_id, what="scan id")
        await cancel(self._database, scan_id, by=user_id)
        return await self.report(scan_id)

    async def report(self, scan_id: str) -> Json:
        """How far the scan is and what it has found.

        Raises:
            InvalidRequest, Unknown: there is none with this id.
        """
        token(scan_id, what="scan id")
        async with self._database.connection() as connection:
            row = await store.scan(connection, scan_id)
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
            "to_adopt": row["to_adopt"],
            "adopted": row["adopted"],
            "broken": row["broken"],
            "refused": row["refused"],
            "queued": row["queued"],
            "sample": row["sample"],
            "limit_reached": bool(row["max_items"]) and row["missing"] >= row["max_items"],
            "is_clean": row["state"] == "done" and row["missing"] == 0,
            "created_at": row["created_at"],
            "started_at": row["started_at"],
            "finished_at": row["finished_at"],
            "duration_ms": row["duration_ms"],
        }
