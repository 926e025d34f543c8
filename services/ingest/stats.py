"""The statistics of the queue and the health of what it depends on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.ingest.explain import paused
from services.ingest.presence_problems import KINDS
from services.ingest.store import reports as store
from shared.db import server_requests
from shared.db.health_reports import Conditions
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.db.publication import publication
from shared.errors import AttemptFailed, DependencyDown
from shared.health import Health
from shared.media.place import free_mb
from shared.states import ACTIVE_STATUSES, STATUS_OF, Stage, Status
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
            **await self._world(numbers.not_durable),
        }

    async def _world(self, not_durable: Sequence[str]) -> Json:
        free = await self._free_mb()
        self._health.up("postgres")
        # Where each service is a process, only the ticketer knows how Torrentino is.
        known = await self._conditions.read()
        found = {name: known.get(name, _UNKNOWN) for name in _ALWAYS_SHOWN}
        postgres = {**found["postgres"], "not_durable": not_durable}
        media = {**found["media"], "free_mb": free}
        async with self._database.connection() as connection:
            at_server = await server_requests.read(connection)
        return {
            "paused": paused(known),
            "health": {**found, **known, "postgres": postgres, "media": media},
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
            self._health.failed(down)
        else:
            self._health.up("media")
            return free
        return None


def _queue(numbers: store.Numbers) -> Json:
    rates, outbox, oldest = numbers.rates, numbers.outbox, numbers.oldest_pending
    by_status, by_stage, by_priority = Counter[str](), Counter[str](), Counter[int]()
    for (stage, priority), count in numbers.counts.items():
        by_status[STATUS_OF[stage]] += count
        by_stage[stage] += count
        if STATUS_OF[stage] in ACTIVE_STATUSES:
            by_priority[priority] += count
    return {
        "by_status": {name.value: by_status[name] for name in Status},
        "by_stage": {name.value: by_stage[name] for name in Stage},
        "by_priority": {number: by_priority[number] for number in (1, 2, 3)},
        "oldest_pending_age_s": None if oldest is None else numbers.now - oldest,
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
        "refused_files": dict(numbers.refused),
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
