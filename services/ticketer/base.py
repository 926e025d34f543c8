"""What a ticketer has in hand: tasks that hold items, and the outage that one of them met."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from shared.db.items import Claim
from shared.duty import PeriodicDuty, drain
from shared.errors import Dependency
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.torrentino.client import TorrentinoClient

_PLACES = 16


class InHand:
    """Base of both ticketers: a loop that fills the free places, and what is in the others."""

    name: str

    def __init__(
        self,
        *,
        client: TorrentinoClient,
        leases: LeaseKeeper,
        relay_wake: asyncio.Event,
        health: Health,
        rng: random.Random,
        needs: Collection[Dependency],
        sweep_interval_s: float,
    ) -> None:
        self._client = client
        self._leases = leases
        self._relay_wake = relay_wake
        self._health = health
        self._torrentino = health.breaker("torrentino")
        self._torrent_client = health.breaker("torrent_client")
        self._working: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._failed_at = health.now()
        self.loop = PeriodicDuty(
            self.name,
            self.run_once,
            interval_s=sweep_interval_s,
            health=health,
            rng=rng,
            needs=needs,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Claim until the stop, then let what is in hand end; cancelled, hand it back."""
        await drain(self.loop, self._working, stop)

    async def run_once(self) -> int:
        """Claim items for as much as there are free places; returns how many items."""
        raise NotImplementedError

    async def _look_first(self) -> None:
        """Return when Torrentino and its client can be asked, as far as is known.

        Asked before anything is claimed: an outage must not fill the items' histories.

        Raises:
            Unavailable: one of them is away, or what is in hand has met an outage since.
        """
        failure, self._failure = self._failure, None
        if failure is not None and self._health.is_news(failure, at=self._failed_at):
            raise failure
        if not self._torrentino.ok:
            await self._client.health()
            self._health.up("torrentino")
        if not self._torrent_client.ok:
            await self._client.client_answers()
            self._health.up("torrent_client")

    def _free(self) -> int:
        return self._torrentino.allowance(_PLACES) - len(self._working)

    def _begin(self, work: Coroutine[None, None, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self.loop.wake.set()
        self._relay_wake.set()
        # A cancelled one lost its lease; that is somebody else's item now.
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
