"""The fetcher-writer: from a finished ticket to a verified file under its final name.

It claims items whose file is ready, and takes the steps of `recipe.py` for each, side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from services.fetcher_writer.match import TicketMatch
from services.fetcher_writer.outcomes import Outcomes
from services.fetcher_writer.preconditions import NEEDS, Preconditions
from services.fetcher_writer.recipe import Recipe
from services.fetcher_writer.second_look import SecondLook
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import ACTOR, Work
from shared.app import App
from shared.crashpoints import reached
from shared.db.claims import Claim
from shared.duty import PeriodicDuty, drain
from shared.errors import Unavailable
from shared.leases import LeaseKeeper

log = structlog.get_logger()

# Seconds for which a ticket counts as one of the `concurrency` that are in work.
BUDGET_S = 60.0
# Tickets in work for each place, with those that wait for a folder or are beyond their budget.
_MOST_TICKETS = 16


class FetcherWriter:
    """Has `concurrency` files in work; `run_once` claims items for as many tickets as are free.

    Items of one ticket are claimed together: only together can its files be told apart. They count
    as one, for `Turns` shares the places among the tickets. A ticket that takes longer than its
    budget does not keep another from being claimed.
    """

    name = ACTOR

    def __init__(
        self,
        app: App,
        *,
        store: Store,
        preconditions: Preconditions,
        recipe: Recipe,
        second_look: SecondLook,
        outcomes: Outcomes,
        leases: LeaseKeeper,
        concurrency: int,
    ) -> None:
        self.store = store
        self.preconditions = preconditions
        self.recipe = recipe
        self.second_look = second_look
        self.outcomes = outcomes
        self._leases = leases
        self._announcer = app.announcer
        self._health = app.health
        self._concurrency = concurrency
        self.working: set[asyncio.Task[None]] = set()
        # The tickets and when the work on each began, by the claim of its first item.
        self._in_work: dict[Claim, tuple[str, float]] = {}
        # What an item has met since the last run: that run raises it, for the loop to wait.
        self._unavailable: Unavailable | None = None
        self._unavailable_at = app.health.now()
        self.loop = PeriodicDuty.of(app, self.name, self.run_once, needs=NEEDS)
        recipe.turns.on_idle = self.loop.wake.set

    async def run(self, stop: asyncio.Event) -> None:
        """Claim until the stop, then let the work end; cancelled, hand it back."""
        await drain(self.loop, self.working, stop)

    async def run_once(self) -> int:
        """Claim as many items as there are free places; returns how many.

        Raises:
            Unavailable: a disk, ffmpeg or PostgreSQL cannot be used now.
        """
        unavailable, self._unavailable = self._unavailable, None
        if unavailable is not None and self._health.is_news(unavailable, at=self._unavailable_at):
            raise unavailable
        free = self._free()
        if free <= 0:
            return 0
        room = await self.preconditions.check()
        works = await self.store.claim(free, room)
        # Not before the claim: some free space does not say that the files that wait fit into it.
        self._health.up("space")
        if not works:
            return 0
        reached("fetcher.claimed")
        for batch in _by_ticket(works):
            # Now, and not when the task begins: the next run may come first.
            self._in_work[batch[0].claim] = (batch[0].ticket.id, time.monotonic())
            name = f"fetch of {batch[0].ticket.id}"
            task = asyncio.create_task(self.fetch(batch), name=name)
            self.working.add(task)
            task.add_done_callback(self.working.discard)
        await self._announcer.announce()
        return len(works)

    def _free(self) -> int:
        """For how many tickets items may be claimed now."""
        began_after, turns = time.monotonic() - BUDGET_S, self.recipe.turns
        counted = sum(
            began > began_after and not turns.is_idle(ticket_id)
            for ticket_id, began in self._in_work.values()
        )
        free = self.preconditions.at_once(self._concurrency) - counted
        return min(free, _MOST_TICKETS * self._concurrency - len(self._in_work))

    async def fetch(self, works: Sequence[Work]) -> None:
        """See items of one ticket through: each by itself, but for the matching of the files."""
        match = self.recipe.match(works)
        tasks = []
        for work in works:
            name = f"fetch {work.claim.item_id}"
            task = asyncio.create_task(self._fetch(work, match), name=name)
            task.add_done_callback(self._ended)
            tasks.append(task)
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel("stopping")
            await asyncio.gather(*tasks, return_exceptions=True)
            self._in_work.pop(works[0].claim, None)
            self.recipe.turns.ended(works[0].ticket.id)
            self.loop.wake.set()
            await match.close()

    async def _fetch(self, work: Work, match: TicketMatch) -> None:
        with self._leases.holding(work.claim):
            try:
                await self.recipe.run(work, match)
            except asyncio.CancelledError as cancelled:
                await asyncio.shield(self.outcomes.settle(work, cancelled))
                raise
            except Exception as met:  # noqa: BLE001 (a bug is logged where it is settled)
                outcome = await self.second_look.judge(work, met)
                if isinstance(outcome, Unavailable):
                    self._unavailable, self._unavailable_at = outcome, self._health.now()
                await self.outcomes.settle(work, outcome)
            finally:
                reached("fetcher.ending")
                await self.recipe.clean_up(work)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Unavailable):
            # PostgreSQL is away, so the outcome could not be written: the lease brings it back.
            log.warning("fetch_left_to_its_lease", task=task.get_name(), detail=str(error))
        else:
            log.error("fetch_failed", task=task.get_name(), exc_info=error)


def _by_ticket(works: Sequence[Work]) -> list[list[Work]]:
    """The works in batches of one ticket each, in the order of their first."""
    batches: dict[str, list[Work]] = {}
    for work in works:
        # A released file is by itself, whatever its torrent's other files are.
        of = work.ticket.id if work.released is None else f"release of {work.claim.item_id}"
        batches.setdefault(of, []).append(work)
    return list(batches.values())
