"""Keeping the leases of what this process holds, for as long as the work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from shared.db.items import Claim, renew
from shared.db.pool import Database
from shared.errors import DependencyDown
from shared.runtime import first_of

log = structlog.get_logger()

# Long enough for work that has committed its end, and so has no lease, to end.
_SECOND_LOOK_S = 1.0


class LeaseKeeper:
    """A duty that renews every lease in hand each third of its time.

    Work whose lease is lost at two looks in a row is cancelled: somebody else has the item.
    """

    name = "leases"

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self._held: dict[Claim, asyncio.Task[object]] = {}
        self._doubted: set[Claim] = set()
        self._idle = asyncio.Event()

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Renew this claim while the block runs in the current task."""
        task = asyncio.current_task()
        assert task is not None, "work runs in a task"
        self._held[claim] = task
        self._idle.clear()
        try:
            yield
        finally:
            self._held.pop(claim, None)
            if not self._held:
                self._idle.set()

    async def run_once(self) -> int:
        """Renew once; returns how many leases were lost for good."""
        held, doubted = dict(self._held), self._doubted
        self._doubted = set()
        if not held:
            return 0
        still_ours = await renew(self._database, list(held), lease_s=self._lease_s)
        # Work that has just ended has given its claim up by itself.
        lost = {claim for claim in self._held if claim in held and claim.item_id not in still_ours}
        self._doubted = lost - doubted
        for claim in lost & doubted:
            log.warning("lease_lost", item_id=claim.item_id, fence=claim.fence)
            held[claim].cancel("lease lost")
        return len(lost & doubted)

    async def run(self, stop: asyncio.Event) -> None:
        """Renew until the stop, and after it for as long as work is still draining."""
        while not stop.is_set():
            await self._renew()
            await first_of(stop, timeout_s=self._pause_s)
        while self._held:
            await self._renew()
            await first_of(self._idle, timeout_s=self._pause_s)

    @property
    def _pause_s(self) -> float:
        return min(_SECOND_LOOK_S, self._lease_s / 3) if self._doubted else self._lease_s / 3

    async def _renew(self) -> None:
        try:
            await self.run_once()
        except DependencyDown as error:
            # The lease may still be renewed in time; if not, the fence keeps us harmless.
            log.warning("leases_not_renewed", error=str(error))
