"""The statistics of the queue and the health of what it depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.ingest.explain import paused
from services.ingest.presence_problems import KINDS
from services.ingest.store import reports as store
from shared.db import server_requests
from shared.db.health_reports import Conditions
from shared.db.media_root import MediaRoot
from shared.db.pool import Database, Row
from shared.db.publication import publication
from shared.errors import AttemptFailed, DependencyDown
from shared.health import Health
from shared.media.place import free_mb
from shared.states import ACTIVE_STATUSES, Stage, Status
from shared.threads import MEDIA

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


class Statistics:
    """Counts by status, stage and priority, ages, rates, downloads and health."""

    def __init__(
        self,
        *,
        database: Database,
        root: MediaRoot,
        health: Health,
        conditions: Conditions,
        bounds: Bounds,
    ) -> None:
        self._database = database
        self._root = root
        self._health = health
        self._conditions = conditions
        self._bounds = bounds

    async def read(self) -> Json:
        """All of it, as of now.

        Raises:
            DependencyDown: PostgreSQL is unavailable.
        """
        async with self._database.connection() as connection:
            numbers = await store.numbers(connection)
            library = await publication(connection)
        return {
            **_queue(numbers),
            **_acquisition(numbers, self._bounds),
            "library": library.as_json(),
            **await self._world(),
        }

    async def _world(self) -> Json:
        free = await self._free_mb()
        self._health.up("postgres")
        # Where each service is a process, only the ticketer knows how Torrentino is.
        known = await self._conditions.read()
        found = {name: known.get(name, _UNKNOWN) for name in _ALWAYS_SHOWN}
        media = {**found["media"], "free_mb": free}
        async with self._database.connection() as connection:
            at_server = await server_requests.read(connection)
        return {
            "paused": paused(known),
            "health": {**found, **known, "media": media},
            "catalog_server": at_server.as_json(),
        }

    async def _free_mb(self) -> int | None:
        """What is free on the media disk; None where that cannot be read now."""
        try:
            async with asyncio.timeout(_DISK_S):
                await self._root.check()
                free = await MEDIA.soon(free_mb, self._root.path)
        except TimeoutError:
            self._health.down("media", f"{self._root.path} does not answer within {_DISK_S:g} s")
        except AttemptFailed as failure:
            self._health.down("media", failure.message)
        except DependencyDown as down:
            self._health.down(down.dependency, down.detail)
        else:
            self._health.up("media")
            return free
        return None


def _queue(numbers: store.Numbers) -> Json:
    counts, rates, outbox = numbers.counts, numbers.rates, numbers.outbox
    pending = [row["oldest"] for row in counts if row["status"] == Status.PENDING]
    active = [row for row in counts if row["status"] in ACTIVE_STATUSES]
    return {
        "by_status": {name.value: _sum(counts, "status", name) for name in Status},
        "by_stage": {name.value: _sum(counts, "stage", name) for name in Stage},
        "by_priority": {number: _sum(active, "priority", number) for number in (1, 2, 3)},
        "oldest_pending_age_s": numbers.now - min(pending) if pending else None,
        "rates": {
            "completed_last_hour": rates["hour_done"],
            "failed_last_hour": rates["hour_failed"],
            "completed_last_day": rates["day_done"],
            "failed_last_day": rates["day_failed"],
            "bytes_last_day": int(rates["day_bytes"]),
        },
        "outbox": {
            "waiting": outbox["waiting"],
            "oldest_s": None if outbox["oldest_s"] is None else float(outbox["oldest_s"]),
        },
        "presence_problems": {kind: numbers.presence_problems.get(kind, 0) for kind in KINDS},
    }


def _acquisition(numbers: store.Numbers, bounds: Bounds) -> Json:
    tickets, mode = numbers.tickets, numbers.acquisition
    return {
        "tickets": {
            "in_flight": tickets["in_flight"],
            "max_in_flight": bounds.tickets,
            "withdrawing": tickets["withdrawing"],
            "need_approval": tickets["need_approval"],
        },
        "acquisition": None if mode is None else dict(mode),
        "downloads": {"in_flight": numbers.downloads, "max_in_flight": bounds.downloads},
        "searches": {"last_hour": numbers.searches, "per_hour": bounds.searches_per_hour},
    }


def _sum(counts: Sequence[Row], column: str, value: object) -> int:
    return sum(int(row["count"]) for row in counts if row[column] == value)
