"""How a service lives: settings once, duties side by side, a stop that finishes or hands back.

A duty is anything with `run(stop)`. `Loop` makes one from a `run_once()`: it runs when it is woken
or its interval is over, pauses with growing waits while a dependency is away, and ends when
`stop` is set and the run in hand is done.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from shared import logs
from shared.app import App, Duty, make_app
from shared.db.conditions import Conditions
from shared.errors import Dependency, DownloadsError, Hold
from shared.health import Health
from shared.metrics import LOOP_RUNS
from shared.ops import OpsServer
from shared.settings import SERVICES, Service, SettingsError, load

log = structlog.get_logger()

_LONGEST_PAUSE_S = 30.0
# Asking these again costs nobody anything, and all work waits for their return.
_LONGEST_PAUSE_OWN_S = 5.0
_OWN: frozenset[Dependency] = frozenset({"postgres", "nats"})
# The end of the grace is kept for handing back, the last publishing and closing.
_CLOSING_S = 6.0


class Loop:
    """Runs `run_once` when woken, and at the latest every `interval_s`.

    `run_once` returns how much it did; as long as that is not 0 it runs again at once. A `Hold`
    pauses the loop, longer each time up to 30 s (5 s for PostgreSQL and NATS), and marks the
    dependency as down.
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
    ) -> None:
        self.name = name
        self.wake = wake or asyncio.Event()
        self._run_once = run_once
        self._interval_s = interval_s
        self._health = health
        self._rng = rng
        self._failures = 0
        self._held_by: Dependency | None = None

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.wake.clear()
            pause_s = await self._step()
            if pause_s is None:
                await first_of(stop, self.wake, timeout_s=self._interval_s)
            elif pause_s > 0:
                await first_of(stop, timeout_s=pause_s)

    async def _step(self) -> float | None:
        """Run once; seconds to pause whatever happens, None to wait for a wake-up."""
        try:
            done = await self._run_once()
        except Hold as held:
            self._health.down(held.dependency, held.detail)
            self._held_by = held.dependency
            LOOP_RUNS.labels(self.name, "held").inc()
            own = held.dependency in _OWN
            return self._pause(_LONGEST_PAUSE_OWN_S if own else _LONGEST_PAUSE_S)
        except Exception:
            # A bug must not end the service: what it was doing comes back by its lease.
            log.exception("duty_failed", duty=self.name)
            LOOP_RUNS.labels(self.name, "failed").inc()
            return self._pause(_LONGEST_PAUSE_S)
        self._failures = 0
        if self._held_by == "postgres":
            # Every run asks PostgreSQL; the others are marked by who gets their answers.
            self._health.up("postgres")
        self._held_by = None
        LOOP_RUNS.labels(self.name, "done").inc()
        return 0.0 if done else None

    def _pause(self, longest_s: float) -> float:
        self._failures += 1
        grown = min(longest_s, 0.5 * 2.0 ** min(self._failures - 1, 10))
        return grown * self._rng.uniform(0.5, 1.0)


def every(
    app: App,
    name: str,
    run_once: Callable[[], Awaitable[int]],
    *,
    interval_s: float | None = None,
    wake: asyncio.Event | None = None,
) -> Loop:
    """A loop with what all loops of a process share; by default at the sweep's interval."""
    interval_s = app.settings.sweep_interval_s if interval_s is None else interval_s
    return Loop(name, run_once, interval_s=interval_s, health=app.health, rng=app.rng, wake=wake)


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the events is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def serve(app: App, duties: Iterable[Duty], stop: asyncio.Event) -> None:
    """Run the duties until `stop`; then drain, hand back and close, all within the grace.

    Raises:
        ExceptionGroup: a duty ended with an error; the others were stopped first.
    """
    relay = every(app, "relay", app.relay.run_once, wake=app.relay.wake)
    told = Conditions(app.database, app.health, worker=app.worker)
    telling = every(app, "conditions", told.run_once)
    grace_s = app.settings.shutdown_grace_s
    closing_s = min(_CLOSING_S, grace_s / 2)
    bus_stop = asyncio.Event()
    bus = asyncio.create_task(app.bus.run(bus_stop), name="bus")
    try:
        await _until_stopped(
            [*duties, relay, telling], stop, drain_s=grace_s - closing_s, hand_back_s=closing_s / 3
        )
    finally:
        await _publish_rest(app, within_s=closing_s / 3)
        bus_stop.set()
        await asyncio.wait([bus], timeout=closing_s / 3)
        await _close(app, within_s=closing_s / 3)


async def _until_stopped(
    duties: Sequence[Duty], stop: asyncio.Event, *, drain_s: float, hand_back_s: float
) -> None:
    tasks = [asyncio.create_task(duty.run(stop), name=duty.name) for duty in duties]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        # One duty that ends by itself ends the service: half of it would only look alive.
        stop.set()
        await asyncio.wait(tasks, timeout=drain_s)
    finally:
        stopped.cancel()
        await _cut_short([task for task in tasks if not task.done()], within_s=hand_back_s)
    errors = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    failed = [error for error in errors if isinstance(error, Exception)]
    if failed:
        raise ExceptionGroup("a duty ended with an error", failed)


async def _cut_short(tasks: Sequence[asyncio.Task[None]], *, within_s: float) -> None:
    """Cancel what is still at work, and wait while it hands back."""
    if not tasks:
        return
    for task in tasks:
        log.info("duty_cut_short", duty=task.get_name())
        task.cancel("stopping")
    _, stuck = await asyncio.wait(tasks, timeout=within_s)
    for task in stuck:
        # What it holds comes back by its lease.
        log.warning("duty_stuck", duty=task.get_name())


async def _publish_rest(app: App, *, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            while await app.relay.run_once():
                pass
    except (Hold, TimeoutError) as error:
        log.info("outbox_left_to_the_others", error=str(error) or "no time left")
    except Exception:
        log.exception("outbox_not_published")


async def _close(app: App, *, within_s: float) -> None:
    """Close every connection; one that does not close must not hold up the end."""
    for close in (*app.closers, app.database.close):
        try:
            async with asyncio.timeout(within_s):
                await close()
        except Exception:
            log.exception("not_closed", what=getattr(close, "__qualname__", str(close)))


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signals(
    stop: asyncio.Event,
    *,
    stopping: Callable[[], None] | None = None,
    at_once: Callable[[], None] | None = None,
) -> None:
    """Let SIGTERM and SIGINT set `stop`; a second one ends the process at once.

    `stopping` is called with the first; `at_once` before the process ends with the second.
    """
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            # The default ends the process even when its threads or its loop hang.
            signal.signal(each, second if at_once else signal.SIG_DFL)
        stop.set()
        if stopping is not None:
            stopping()

    def second(number: int, _frame: object) -> None:
        assert at_once is not None
        at_once()
        os._exit(128 + number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, first, number)


Build = Callable[[App], list[Duty]]


def main(services: dict[Service, Build]) -> None:
    """Run services in this process until a signal, then exit with 0."""
    try:
        settings = load(list(services))
    except SettingsError as error:
        sys.exit(str(error))
    logs.configure(settings)
    name = "all" if len(services) == len(SERVICES) else "+".join(services)
    closed = threading.Event()

    def overdue() -> None:
        # A thread that hangs in a system call, on a dead network disk say, cannot be ended.
        log.warning("stop_overdue", handed_back=closed.is_set())
        os._exit(0 if closed.is_set() else 1)

    def stopping() -> None:
        timer = threading.Timer(settings.shutdown_grace_s, overdue)
        timer.daemon = True
        timer.start()

    async def run() -> None:
        stop = asyncio.Event()
        on_signals(stop, stopping=stopping)
        app = make_app(settings, name=name)
        await serve(app, [*build_all(app, services), OpsServer(app)], stop)
        closed.set()

    try:
        asyncio.run(run())
    except* DownloadsError as group:
        sys.exit("\n".join(str(error) for error in group.exceptions))


def build_all(app: App, services: dict[Service, Build]) -> list[Duty]:
    """The duties of several services that share one process."""
    return [duty for build in services.values() for duty in build(app)]
