"""What a service does until its stop. Most duties are a `run_once()` that is run periodically."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack
from typing import Protocol

import structlog

from shared.app import App
from shared.backoff import Backoff
from shared.breaker import Breaker
from shared.errors import Dependency, StatementAborted, Unavailable
from shared.health import Health
from shared.metrics import DUTY_RUNS
from shared.stop import first_of, run_until

log = structlog.get_logger()

_PAUSES_AFTER_FAILURES = Backoff(first_s=0.5, longest_s=30)


class Duty(Protocol):
    """Something that a service does until its stop."""

    @property
    def name(self) -> str:
        """The duty's name, for logs and metrics."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set and the work in hand is finished."""
        ...


class PeriodicDuty:
    """Runs `run_once` when woken, and at the latest every `interval_s`.

    `run_once` returns how much it did; until that is 0 it runs again at once. It does not run
    while PostgreSQL, one of `needs`, or what its last run failed on, is known to be unavailable:
    the breakers in `health` decide when to try again, and one duty of the process tries first.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[int]],
        *,
        interval_s: float,
        health: Health,
        rng: random.Random,
        wake: asyncio.Event | None = None,
        needs: Collection[Dependency] = (),
    ) -> None:
        self.name = name
        self.run_once = run_once
        self.wake = wake or asyncio.Event()
        self._interval_s = interval_s
        self._health = health
        self._rng = rng
        self._needs = frozenset[Dependency]({"postgres", *needs})
        # What the last run failed on.
        self._failed_on: Dependency | None = None
        self._failures = 0

    @classmethod
    def of(
        cls,
        app: App,
        name: str,
        run_once: Callable[[], Awaitable[int]],
        *,
        interval_s: float | None = None,
        wake: asyncio.Event | None = None,
        needs: Collection[Dependency] = (),
    ) -> PeriodicDuty:
        """A duty with what all duties of a process share; by default at the sweep's interval."""
        return cls(
            name,
            run_once,
            interval_s=app.settings.sweep_interval_s if interval_s is None else interval_s,
            health=app.health,
            rng=app.rng,
            wake=wake,
            needs=needs,
        )

    async def run(self, stop: asyncio.Event) -> None:
        await run_until(stop, self._turn)

    async def _turn(self, stop: asyncio.Event) -> float:
        if (away := self._away()) is not None:
            await first_of(stop, away.passable, timeout_s=away.wait_s())
            return 0.0
        self.wake.clear()
        pause_s = await self.step()
        if pause_s is None:
            await first_of(stop, self.wake, timeout_s=self._interval_s)
        return pause_s or 0.0

    def _breakers(self) -> list[Breaker]:
        failed_on = {self._failed_on} if self._failed_on else set[Dependency]()
        return [self._health.breaker(each) for each in sorted(self._needs | failed_on)]

    def _away(self) -> Breaker | None:
        """The dependency that has to be waited for longest, if any has."""
        away = max(self._breakers(), key=Breaker.wait_s)
        return away if away.wait_s() > 0 else None

    async def step(self) -> float | None:
        """Run once; seconds to pause even when woken, None to wait for a wake-up."""
        with ExitStack() as probes:
            for breaker in self._breakers():
                probes.enter_context(breaker.probing())
            try:
                done = await self.run_once()
            except StatementAborted as aborted:
                # PostgreSQL works: the other duties continue, and this one does not insist.
                self._health.failed(aborted)
                DUTY_RUNS.labels(self.name, "failed").inc()
                self._failures += 1
                return _PAUSES_AFTER_FAILURES.pause_s(self._failures - 1, self._rng)
            except Unavailable as unavailable:
                self._health.failed(unavailable)
                self._failed_on = unavailable.dependency
                DUTY_RUNS.labels(self.name, "unavailable").inc()
                return 0.0
            except Exception:
                # A bug must not end the service: the items in hand come back by their leases.
                log.exception("duty_failed", duty=self.name)
                DUTY_RUNS.labels(self.name, "failed").inc()
                self._failures += 1
                return _PAUSES_AFTER_FAILURES.pause_s(self._failures - 1, self._rng)
            self._failures = 0
            if not self._health.breaker("postgres").ok:
                # Every run queries PostgreSQL; the callers of the others report their answers.
                self._health.up("postgres")
            self._failed_on = None
        DUTY_RUNS.labels(self.name, "done").inc()
        return 0.0 if done else None


async def drain(duty: Duty, working: Collection[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Run the duty until the stop, then let the tasks that it started end.

    Cancelled, it cancels them too; they have handed back and ended when this returns.
    """
    try:
        await duty.run(stop)
        while working:
            await asyncio.wait(working)
    finally:
        for task in working:
            task.cancel("stopping")
        await asyncio.gather(*working, return_exceptions=True)
