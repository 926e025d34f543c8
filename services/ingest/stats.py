"""What an administrator wants to know at a glance."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.ingest.paused import paused
from shared.db.health_reports import Conditions
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.errors import AttemptFailed, DependencyDown
from shared.health import Health
from shared.media.place import free_mb
from shared.states import Stage, Status

Json: TypeAlias = dict[str, Any]

_DISK_S = 3.0

_ALWAYS_SHOWN = ("postgres", "nats", "torrentino", "media")
_UNKNOWN: Json = {
    "ok": None,
    "detail": "no process has talked to it",
    "since": None,
    "circuit": "closed",
    "alarm": None,
    "next_try_at": None,
}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much there may be at once, or in an hour, over all ticketers."""

    tickets: int
    downloads: int
    searches_per_hour: int


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
  FROM tickets WHERE state <> 'closed' AND way = 'tickets'
"""

_DOWNLOADS = """
SELECT count(DISTINCT coalesce(info_hash, id)) AS in_flight FROM tickets
 WHERE state IN ('intent', 'open') AND way = 'direct'
"""

_SEARCHES = "SELECT count(*) FROM searches_made WHERE at > now() - interval '1 hour'"

_ACQUISITION = "SELECT way, reason FROM acquisition"

_NOW = "SELECT extract(epoch FROM now())::bigint"

_OUTBOX = """
SELECT count(*) AS waiting, extract(epoch FROM now() - min(at)) AS oldest_s
  FROM events WHERE published_at IS NULL
"""


async def stats(
    database: Database,
    root: MediaRoot,
    health: Health,
    conditions: Conditions,
    *,
    bounds: Bounds,
) -> Json:
    """Counts by status, stage and priority, ages, rates, downloads, and the state of the world."""
    async with database.connection() as connection:
        counts = await connection.fetch(_COUNTS)
        rates = await connection.fetchrow(_RATES)
        tickets = await connection.fetchrow(_TICKETS)
        downloads = await connection.fetchval(_DOWNLOADS)
        searches = await connection.fetchval(_SEARCHES)
        acquisition = await connection.fetchrow(_ACQUISITION)
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
            "max_in_flight": bounds.tickets,
            "withdrawing": tickets["withdrawing"],
            "need_approval": tickets["need_approval"],
        },
        # Empty until a ticketer has decided.
        "acquisition": None if acquisition is None else dict(acquisition),
        "downloads": {"in_flight": downloads, "max_in_flight": bounds.downloads},
        "searches": {"last_hour": searches, "per_hour": bounds.searches_per_hour},
        "outbox": {
            "waiting": outbox["waiting"],
            "oldest_s": None if outbox["oldest_s"] is None else float(outbox["oldest_s"]),
        },
        **await _health(root, health, conditions),
    }


async def _health(root: MediaRoot, health: Health, conditions: Conditions) -> Json:
    free = await _look_at_disk(root, health)
    health.up("postgres")
    # In an installation of separate processes the ticketer, not ingest, knows of Torrentino.
    known = await conditions.read()
    found = {name: known.get(name, _UNKNOWN) for name in _ALWAYS_SHOWN}
    media = {**found["media"], "free_mb": free}
    return {"paused": paused(known), "health": {**found, **known, "media": media}}


async def _look_at_disk(root: MediaRoot, health: Health) -> int | None:
    try:
        async with asyncio.timeout(_DISK_S):
            await root.check()
            free = await asyncio.to_thread(free_mb, root.path)
    except TimeoutError:
        health.down("media", f"{root.path} does not answer within {_DISK_S:g} s")
    except AttemptFailed as failure:
        health.down("media", failure.message)
    except DependencyDown as down:
        health.down(down.dependency, down.detail)
    else:
        health.up("media")
        return free
    return None


def _sums(counts: list[Any], column: str, names: type[Status] | type[Stage]) -> dict[str, int]:
    return {
        name.value: sum(row["count"] for row in counts if row[column] == name.value)
        for name in names
    }
