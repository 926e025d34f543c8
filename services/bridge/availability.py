"""The server's availability job: it computes from `audio_uri` what clients and search show.

A run covers what was published before it was asked for; so one that was running already does not
count, and what is published during a run needs another. The runs take a tenth of the time at most.
"""

from __future__ import annotations

import structlog

from services.bridge.catalog_server import CatalogServer
from services.bridge.server_http import Forbidden, NotEnabled
from services.bridge.server_store import Changes, ServerStore
from shared.clock import Clock
from shared.crashpoints import reached
from shared.metrics import AVAILABILITY_RUNS

log = structlog.get_logger()

PROBLEM = "availability"
# An album's tracks are published one after another: the run waits for a pause, and not too long.
_QUIET_S = 1.0
_LONGEST_WAIT_S = 15.0
_SHARE = 10.0
_RUNNING_S = 2.0
_FAILED_S = 60.0
_WARNED_S = 10.0
_FORBIDDEN_S = 600.0
# 200,000 repairs held the lock of catalog.db for 4.9 s and wrote 3.3 GB of search index.
MANY = 50_000
WARNING_S = 600.0


class Availability:
    """Has the server compute its flags after changes."""

    def __init__(self, *, server: CatalogServer, store: ServerStore, clock: Clock) -> None:
        self._server = server
        self._store = store
        self._clock = clock
        self._not_before = 0.0
        # Why no run can be had, in words.
        self.refused: str | None = None

    async def run_once(self) -> int:
        """Ask for a run where one is due, or for the end of one; returns 0.

        Raises:
            Unavailable: the server or PostgreSQL is away.
        """
        if self._clock.monotonic() < self._not_before:
            return 0
        changes = await self._store.changes()
        try:
            if changes.asked:
                await self._follow(changes)
            elif changes.changed and self._is_due(changes) and not await self._warn(changes):
                await self._trigger()
        except (Forbidden, NotEnabled) as refused:
            await self._store.not_asked()
            await self._fail(refused.detail, again_in_s=_FORBIDDEN_S)
            self.refused = refused.detail
        return 0

    @staticmethod
    def _is_due(changes: Changes) -> bool:
        if changes.newest_s < _QUIET_S and changes.oldest_s < _LONGEST_WAIT_S:
            return False
        return changes.since_run_s is None or changes.since_run_s >= _SHARE * changes.took_s

    async def _warn(self, changes: Changes) -> bool:
        """Whether the run has to wait, so that an operator may read what it will cost."""
        if changes.changed <= MANY:
            return False
        if changes.since_warning_s is None:
            await self._store.warned()
            text = (
                f"the next run of the availability job repairs {changes.changed} tracks: at 200,000"
                " it held the lock of catalog.db for 4.9 s and wrote 3.3 GB of search index; it is"
                f" asked for in {WARNING_S / 60:.0f} minutes, unless BRIDGE_AVAILABILITY is false"
            )
            await self._store.say(PROBLEM, text)
            log.warning("availability_run_is_large", tracks=changes.changed, detail=text)
        elif changes.since_warning_s >= WARNING_S:
            return False
        self._not_before = self._clock.monotonic() + _WARNED_S
        return True

    async def _trigger(self) -> None:
        await self._store.asking()
        reached("server.availability_asking")
        if await self._server.trigger_availability() == "running":
            # It may have begun before the last change.
            await self._store.not_asked()
            self._not_before = self._clock.monotonic() + _RUNNING_S
            return
        reached("server.availability_asked")

    async def _follow(self, changes: Changes) -> None:
        run = await self._server.availability()
        if run.running:
            return
        if run.started_at is None or run.started_at == changes.run:
            # It was never begun, or the server has forgotten it in a restart.
            await self._store.not_asked()
            return
        if run.status != "completed":
            await self._store.not_asked()
            await self._fail(f"the run ended {run.status}: {run.error}", again_in_s=_FAILED_S)
            return
        await self._store.ran(run=run.started_at, took_s=run.took_s)
        reached("server.availability_ran")
        self.refused = None
        await self._store.say(PROBLEM, None)
        AVAILABILITY_RUNS.labels("completed").inc()
        log.info("availability_ran", tracks=changes.changed, took_s=run.took_s)

    async def _fail(self, why: str, *, again_in_s: float) -> None:
        self._not_before = self._clock.monotonic() + again_in_s
        AVAILABILITY_RUNS.labels("failed").inc()
        if await self._store.say(PROBLEM, why):
            log.error("availability_did_not_run", why=why)
