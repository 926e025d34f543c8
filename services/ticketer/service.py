"""The ticketer: from due items to a download at a remote, exactly one for each attempt.

No remote can deduplicate, so the intent is committed before the call that starts a download. After
a crash or a lost answer the next ticketer that takes the items looks for what the intent has
started, before it starts anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Generic

import structlog

from services.ticketer.attempt import AttemptT, NoTurn, Starter
from shared.app import App
from shared.backoff import Backoff
from shared.db.claims import Claim
from shared.db.health_reports import alarm
from shared.duty import PeriodicDuty, drain
from shared.errors import AttemptFailed, OutcomeUnknown, Unavailable
from shared.leases import LeaseKeeper
from shared.torrentino.client import TorrentinoClient

log = structlog.get_logger()

_PLACES = 16
# Where the server has answered, with an error, its request is not at work any more.
_SETTLED_S = 1.0
# Of an attempt that fails alone, from its second failure in a row on.
_PAUSES_AFTER_FAULTS = Backoff(first_s=5, longest_s=600)

log = structlog.get_logger()


class Ticketer(Generic[AttemptT]):
    """Starts downloads by one mode, some at once; `run_once` fills the free places."""

    def __init__(
        self,
        app: App,
        starter: Starter[AttemptT],
        *,
        client: TorrentinoClient,
        leases: LeaseKeeper,
    ) -> None:
        self.name = starter.name
        self.starter = starter
        # What is in hand: each task holds the items of one attempt.
        self.working: set[asyncio.Task[None]] = set()
        self.loop = PeriodicDuty.of(app, self.name, self.run_once, needs=starter.needs)
        self._app = app
        self._client = client
        self._leases = leases
        self._health = app.health
        self._torrentino = app.health.breaker("torrentino")
        self._torrent_client = app.health.breaker("torrent_client")
        # Why no download is started, as the log has it.
        self._wrong: str | None = None
        self._failure: Exception | None = None
        self._failed_at = app.health.now()

    async def run(self, stop: asyncio.Event) -> None:
        """Claim until the stop, then let what is in hand end; cancelled, hand it back."""
        await drain(self.loop, self.working, stop)

    async def run_once(self) -> int:
        """Claim items for as many downloads as there are free places; returns how many items.

        Those that join a download that is under way take no place.

        Raises:
            Unavailable: a remote or PostgreSQL; the items are handed back, and no attempt is
                used.
        """
        await self._check_dependencies()
        if await self._cannot_be_collected():
            return 0
        joined = await self.starter.join()
        if joined:
            await self._app.announcer.announce("poll")
        free = self._torrentino.allowance(_PLACES) - len(self.working)
        attempts = await self.starter.claim(free) if free > 0 else []
        if not attempts:
            return joined
        await self._app.announcer.announce()
        for attempt in attempts:
            task = asyncio.create_task(self._start(attempt), name=f"{self.name} {attempt.id}")
            self.working.add(task)
            task.add_done_callback(self._done)
        return joined + sum(len(attempt.claims) for attempt in attempts)

    async def finish(self) -> None:
        """Return when nothing is in hand.

        Raises:
            Unavailable: as the next `run_once` would, for what one of the attempts met.
        """
        while self.working:
            await asyncio.wait(self.working)
        # The done callbacks run after those that wait; then the failure is known.
        await asyncio.sleep(0)
        self._raise_failure()

    async def _check_dependencies(self) -> None:
        """Return when the remote can be asked, as this process knows.

        Asked before anything is claimed: an outage must not fill the items' histories.

        Raises:
            Unavailable: it is away, or what is in hand has met an outage since.
        """
        self._raise_failure()
        if not self._torrentino.ok:
            await self._client.health()
            self._health.up("torrentino")
        if not self._torrent_client.ok:
            await self._client.client_answers()
            self._health.up("torrent_client")

    async def _cannot_be_collected(self) -> bool:
        """Whether what would be downloaded lands where no fetcher-writer finds it.

        This process's own health does not say it: it never reads that place.
        """
        async with self._app.database.connection() as connection:
            wrong = await alarm(connection, "incoming")
        if wrong != self._wrong:
            log.warning("downloads_held", duty=self.name, why=wrong or "over")
            self._wrong = wrong
        return wrong is not None

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None and self._health.is_news(failure, at=self._failed_at):
            raise failure

    async def _start(self, attempt: AttemptT) -> None:
        starter = self.starter
        # The leases are kept from here on, also while the attempt waits for others.
        with self._holding(attempt.claims):
            try:
                await starter.start(attempt)
            except NoTurn as later:
                await starter.hand_back(attempt, delay_s=later.wait_s, reason=str(later))
            except OutcomeUnknown as unknown:
                delay_s = _SETTLED_S if unknown.settled else starter.unsettled_s
                own = await starter.works("torrentino")
                reason = f"outcome unknown: {unknown}"
                await self._hand_back(attempt, reason, at_least_s=delay_s, own_fault=own)
            except AttemptFailed as failure:
                await starter.fail(attempt, failure)
            except Unavailable as away:
                if attempt.alone and await starter.works(away.dependency):
                    await self._hand_back(attempt, str(away), at_least_s=_SETTLED_S, own_fault=True)
                    return
                wait_s = starter.delay_of(away)
                await starter.hand_back(attempt, delay_s=wait_s or 0.0, reason=str(away))
                if wait_s is None:
                    raise
            except asyncio.CancelledError as cut:
                # A request may be left at work at the remote.
                back = starter.hand_back(
                    attempt, delay_s=attempt.unsettled_s, reason=str(cut) or "stopping"
                )
                await asyncio.shield(back)
                raise

    async def _hand_back(
        self, attempt: AttemptT, reason: str, *, at_least_s: float, own_fault: bool
    ) -> None:
        """What is the attempt's own fault waits for longer each time in a row."""
        delay_s = at_least_s
        if own_fault:
            again_s = _PAUSES_AFTER_FAULTS.pause_s(attempt.failures - 1, self._app.rng)
            delay_s = max(at_least_s, again_s if attempt.failures else 0.0)
            log.warning(
                "request_at_fault",
                ticket=attempt.id,
                in_a_row=attempt.failures + 1,
                wait_s=delay_s,
                detail=reason,
            )
        await self.starter.hand_back(attempt, delay_s=delay_s, reason=reason, own_fault=own_fault)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.working.discard(task)
        self.loop.wake.set()
        self._app.relay.wake.set()
        # A cancelled one lost its lease: another worker has the item.
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failure, self._failed_at = error, self._health.now()

    @contextmanager
    def _holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Keep the leases for the block."""
        with ExitStack() as leases:
            for claim in claims:
                leases.enter_context(self._leases.holding(claim))
            yield
