"""What an administrator wants to know at a glance."""

from __future__ import annotations

from typing import Any, TypeAlias

from shared.db.pool import Database
from shared.health import Health
from shared.states import Stage, Status

Json: TypeAlias = dict[str, Any]

_COUNTS = """
SELECT status, stage, priority, count(*) AS count, min(created_at) AS oldest
  FROM queue_items GROUP BY status, stage, priority
"""

_RATES = """
SELECT count(*) FILTER (WHERE status = 'COMPLETED' AND completed_at > e.now - 3600) AS hour_done,
       count(*) FILTER (WHERE status = 'FAILED' AND completed_at > e.now - 3600) AS hour_failed,
       count(*) FILTER (WHERE status = 'COMPLETED') AS day_done,
       count(*) FILTER (WHERE status = 'FAILED') AS day_failed,
       coalesce(sum(bytes_downloaded) FILTER (WHERE status = 'COMPLETED'), 0) AS day_bytes
  FROM queue_items, (SELECT extract(epoch FROM now())::bigint AS now) e
 WHERE completed_at > e.now - 86400
"""

_TICKETS = """
SELECT count(*) FILTER (WHERE state <> 'closed') AS in_flight,
       count(*) FILTER (WHERE state = 'withdrawing') AS withdrawing,
       count(*) FILTER (WHERE state = 'open' AND remote_state = 'needs_approval') AS need_approval
  FROM tickets WHERE state <> 'closed'
"""

_NOW = "SELECT extract(epoch FROM now())::bigint"

_OUTBOX = """
SELECT count(*) AS waiting, extract(epoch FROM now() - min(at)) AS oldest_s
  FROM events WHERE published_at IS NULL
"""


async def stats(database: Database, health: Health, *, max_in_flight: int) -> Json:
    """Counts by status, stage and priority, ages, rates, tickets, and the state of the world."""
    async with database.connection() as connection:
        counts = await connection.fetch(_COUNTS)
        rates = await connection.fetchrow(_RATES)
        tickets = await connection.fetchrow(_TICKETS)
        outbox = await connection.fetchrow(_OUTBOX)
        now = await connection.fetchval(_NOW)
    assert rates is not None
    assert tickets is not None
    assert outbox is not None
    pending = [row["oldest"] for row in counts if row["status"] == Status.PENDING]
    return {
        "by_status": _sums(counts, "status", Status),
        "by_stage": _sums(counts, "stage", Stage),
        "by_priority": {
            priority: sum(
                row["count"]
                for row in counts
                if row["priority"] == priority
                and row["status"] in (Status.PENDING, Status.DOWNLOADING)
            )
            for priority in (1, 2, 3)
        },
        "oldest_pending_age_s": now - min(pending) if pending else None,
        "rates": {
            "completed_last_hour": rates["hour_done"],
            "failed_last_hour": rates["hour_failed"],
            "completed_last_day": rates["day_done"],
            "failed_last_day": rates["day_failed"],
            "bytes_last_day": int(rates["day_bytes"]),
        },
        "tickets": {
            "in_flight": tickets["in_flight"],
            "max_in_flight": max_in_flight,
            "withdrawing": tickets["withdrawing"],
            "need_approval": tickets["need_approval"],
        },
        "outbox": {
            "waiting": outbox["waiting"],
            "oldest_s": None if outbox["oldest_s"] is None else float(outbox["oldest_s"]),
        },
        "health": {
            name: {"ok": c.ok, "detail": c.detail, "since": int(c.since.timestamp())}
            for name, c in health.conditions().items()
        },
    }


def _sums(counts: list[Any], column: str, names: type[Status] | type[Stage]) -> dict[str, int]:
    return {
        name.value: sum(row["count"] for row in counts if row[column] == name.value)
        for name in names
    }
