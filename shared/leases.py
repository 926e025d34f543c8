"""Renews the leases of the items that this process works on, until the work ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from shared.db.claims import Claim, renew
from shared.db.pool import Database
from shared.errors import DependencyDown
from shared.stop import run_until

log = structlog.get_logger()

# Long enough for work to end that has committed its last move, and so has no lease any more.
_SECOND_CHECK_S = 1.0


class LeaseKeeper:
    """A duty that renews every held lease each third of its time.

    Work whose lease is lost at two checks in a row is cancelled: another worker has the item.
    """

    name = "leases"

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self.held: dict[Claim, asyncio.Task[object]] = {}
        # Lost at the last check, but not at the one before.
        self._doubted: set[Claim] = set()
        # Set while no lease is held.
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Renew this claim while the block runs in the current task."""
        task = asyncio.current_task()
        assert task is not None, "work runs in a task"
        self.held[claim] = task
        self._idle.clear()
        try:
            yield
        finally:
            self.held.pop(claim, None)
            if not self.held:
                self._idle.set()

    async def run_once(self) -> int:
        """Renew once; returns how many leases were lost for good.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        held, doubted = dict(self.held), self._doubted
        self._doubted = set()
        if not held:
            return 0
        renewed = await renew(self._database, list(held), lease_s=self._lease_s)
        # Work that has ended meanwhile has given up its claim itself.
        lost = {claim for claim in self.held if claim in held and claim.item_id not in renewed}
        self._doubted = lost - doubted
        for claim in lost & doubted:
            log.warning("lease_lost", item_id=claim.item_id, fence=claim.fence)
            held[claim].cancel("lease lost")
        return len(lost & doubted)

    async def run(self, stop: asyncio.Event) -> None:
        """Renew until the stop, and after it until the work in hand has drained."""
        await run_until(stop, self._turn)
        await run_until(self._idle, self._turn)

    async def _turn(self, _stop: asyncio.Event) -> float:
        try:
            await self.run_once()
        except DependencyDown as error:
            # The next renewal may still be in time; if not, the fence makes our writes harmless.
            log.warning("leases_not_renewed", error=str(error))
        pause_s = self._lease_s / 3
        return min(_SECOND_CHECK_S, pause_s) if self._doubted else pause_s
