"""Scans for missing files: asked for over HTTP or NATS, carried out by the watchdog.

The row is the command; messages only say that there is one.
"""

from __future__ import annotations

import uuid

from shared.db.pool import Database
from shared.errors import Conflict, DependencyDown, Unknown
from shared.events import ScanOrder
from shared.states import OPEN_SCANS, ScanState, allowed_from, values

# What one queue-all may put into the queue when it does not say; the catalog knows far more
# tracks than a server downloads at once.
DEFAULT_LIMIT = 10_000

_INSERT = """
INSERT INTO scans (id, queue, scope, max_items, requested_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
"""

_RUNNING = "SELECT id FROM scans WHERE state = ANY($1)"

_KNOWN = "SELECT 1 FROM scans WHERE id = $1"

_TURNS = 3


_CANCEL = """
UPDATE scans SET state = $3, problem = $2, finished_at = now(), lease_until = NULL
 WHERE id = $1 AND state = ANY($4)
"""

_STATE = "SELECT state FROM scans WHERE id = $1"


async def start(
    database: Database,
    order: ScanOrder,
    *,
    queue: bool,
    requested_by: str | None,
    scan_id: str | None = None,
) -> str:
    """Order a scan and return its id; `scan_id` makes the order repeatable.

    Raises:
        Conflict: there is a scan that has not ended; names it.
    """
    scan_id = scan_id or str(uuid.uuid4())
    limit = order.limit or (DEFAULT_LIMIT if queue else 0)
    async with database.connection() as connection:
        for _ in range(_TURNS):
            if await connection.fetchval(_KNOWN, scan_id):
                return scan_id
            done = await connection.execute(
                _INSERT, scan_id, queue, order.model_dump(), limit, requested_by
            )
            if done == "INSERT 0 1":
                return scan_id
            running = await connection.fetchval(_RUNNING, values(OPEN_SCANS))
            if running is not None and running != scan_id:
                raise Conflict(
                    f"scan {running} has not ended: wait for it or cancel it, at"
                    f" /v1/download/admin/scan/{running}"
                )
            # The scan that was in the way ended just now, or is this one.
    raise DependencyDown("postgres", "scans come and go too fast")


async def cancel(database: Database, scan_id: str, *, by: str) -> None:
    """End a scan; what it has found and queued so far stays.

    Raises:
        Unknown: there is none with this id.
        Conflict: it has ended.
    """
    async with database.connection() as connection:
        done = await connection.execute(
            _CANCEL,
            scan_id,
            f"cancelled by {by}",
            ScanState.CANCELLED,
            allowed_from(ScanState.CANCELLED),
        )
        if done == "UPDATE 1":
            return
        state = await connection.fetchval(_STATE, scan_id)
    if state is None:
        raise Unknown(f"there is no scan {scan_id[:80]!r}")
    raise Conflict(f"scan {scan_id} has ended already: it is {state}")
