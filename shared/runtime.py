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
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog

from shared import logs
from shared.app import App, Duty, make_app
from shared.breaker import LONGEST_PAUSE_S, Breaker, pause_s
from shared.db.health_reports import Conditions
from shared.errors import Dependency, DownloadsError, Unavailable
from shared.health import Health
from shared.metrics import LOOP_RUNS
from shared.ops import OpsServer
from shared.settings import SERVICES, Service, load

log = structlog.get_logger()

# The end of the grace is kept for handing back, the last publishing and closing.
_CLOSING_S = 6.0
# How it is shared out; a little is left for the end of the process itself.
_HAND_BACK, _FLUSH, _BUS, _CLOSE = 0.25, 0.25, 0.15, 0.15


class Loop:
    """Runs `run_once` when woken, and at the latest every `interval_s`.

    `run_once` returns how much it did; as long as that is not 0 it runs again at once. It does
    not run while PostgreSQL, one of `needs`, or what its last run failed on, is known to be away:
    the breakers in `health` say when to try again, and one loop of the process tries first.
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
        self.wake = wake or asyncio.Event()
        self._run_once = run_once
        self._interval_s = interval_s
        self._health = health
        self._rng = rng
        self._needs = frozenset[Dependency]({"postgres", *needs})
        self._held_by: Dependency | None = None
        self._bugs = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if (away := self._away()) is not None:
                await first_of(stop, away.passable, timeout_s=away.wait_s())
                continue
            self.wake.clear()
            pause_s = await self._step()
            if pause_s is None:
                await first_of(stop, self.wake, timeout_s=self._interval_s)
            elif pause_s > 0:
                await first_of(stop, timeout_s=pause_s)

    def _breakers(self) -> list[Breaker]:
        held_by = {self._held_by} if self._held_by else set[Dependency]()
        return [self._health.breaker(each) for each in sorted(self._needs | held_by)]

    def _away(self) -> Breaker | None:
        """What has to be waited for longest, if anything has."""
        away = max(self._breakers(), key=Breaker.wait_s)
        return away if away.wait_s() > 0 else None

    async def _step(self) -> float | None:
        """Run once; seconds to pause whatever happens, None to wait for a wake-up."""
        with ExitStack() as probes:
            for breaker in self._breakers():
                probes.enter_context(breaker.probing())
            try:
                done = await self._run_once()
            except Unavailable as held:
                self._health.failed(held)
                self._held_by = held.dependency
                LOOP_RUNS.labels(self.name, "held").inc()
                return 0.0
            except Exception:
                # A bug must not end the service: what it was doing comes back by its lease.
                log.exception("duty_failed", duty=self.name)
                LOOP_RUNS.labels(self.name, "failed").inc()
                self._bugs += 1
                return pause_s(self._bugs, self._rng, longest_s=LONGEST_PAUSE_S)
            self._bugs = 0
            if not self._health.breaker("postgres").ok:
                # Every run asks PostgreSQL; the others are marked by who gets their answers.
                self._health.up("postgres")
            self._held_by = None
        LOOP_RUNS.labels(self.name, "done").inc()
        return 0.0 if done else None


def every(
    app: App,
    name: str,
    run_once: Callable[[], Awaitable[int]],
    *,
    interval_s: float | None = None,
    wake: asyncio.Event | None = None,
    needs: Collection[Dependency] = (),
) -> Loop:
    """A loop with what all loops of a process share; by default at the sweep's interval."""
    return Loop(
        name,
        run_once,
        interval_s=app.settings.sweep_interval_s if interval_s is None else interval_s,
        health=app.health,
        rng=app.rng,
        wake=wake,
        needs=needs,
    )


async def drain(loop: Loop, working: Collection[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Run the loop until the stop, then let the tasks it started end.

    Cancelled, they are cancelled too, and have ended, having handed back, when this returns.
    """
    try:
        await loop.run(stop)
        while working:
            await asyncio.wait(working)
    finally:
        for task in working:
            task.cancel("stopping")
        await asyncio.gather(*working, return_exceptions=True)


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
    relay = every(app, "relay", app.relay.run_once, wake=app.relay.wake, needs=["nats"])
    told = Conditions(app.database, app.health, worker=app.worker)
    telling = every(app, "conditions", told.run_once)
    grace_s = app.settings.shutdown_grace_s
    closing_s = min(_CLOSING_S, grace_s / 2)
    bus_stop = asyncio.Event()
    bus = asyncio.create_task(app.bus.run(bus_stop), name="bus")
    try:
        await _until_stopped(
            [*duties, relay, telling],
            stop,
            drain_s=grace_s - closing_s,
            hand_back_s=_HAND_BACK * closing_s,
        )
    finally:
        await _flush(app, told, within_s=_FLUSH * closing_s)
        bus_stop.set()
        await asyncio.wait([bus], timeout=_BUS * closing_s)
        await _close(app, within_s=_CLOSE * closing_s)


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


async def _flush(app: App, told: Conditions, *, within_s: float) -> None:
    """Take back what we were kept from, and publish the last events."""
    try:
        async with asyncio.timeout(within_s):
            await told.forget()
            while await app.relay.run_once():
                pass
    except (Unavailable, TimeoutError) as error:
        log.info("outbox_left_to_the_others", error=str(error) or "no time left")
    except Exception:
        log.exception("outbox_not_published")


async def _close(app: App, *, within_s: float) -> None:
    """Close every connection; one that does not close must not hold up the end."""

    async def bounded(close: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(within_s):
                await close()
        except Exception:
            log.exception("not_closed", what=getattr(close, "__qualname__", str(close)))

    await asyncio.gather(*(bounded(close) for close in (*app.closers, app.database.close)))


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
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            # The default ends the process even when its threads or its loop hang.
            signal.signal(each, second if at_once else signal.SIG_DFL)
        # Only now: who reads this may send the second one.
        log.info("stopping", signal=number.name)
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
    with errors_in_lines():
        _main(services)


def _main(services: dict[Service, Build]) -> None:
    settings = load(list(services))
    # Not whatever the process was started with: the catalog server has to read what we place.
    os.umask(settings.umask_bits)
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

    asyncio.run(run())


@contextmanager
def errors_in_lines() -> Iterator[None]:
    """End the process with a line for each error that we raise on purpose; a bug passes through."""
    try:
        yield
    except DownloadsError as error:
        sys.exit(str(error))
    except BaseExceptionGroup as group:
        # Not `except*`: an exit within one is wrapped by Python before 3.11.4, and shown as a bug.
        _, bugs = group.split(DownloadsError)
        if bugs is not None:
            raise
        sys.exit("\n".join(str(error) for error in _leaves(group)))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def build_all(app: App, services: dict[Service, Build]) -> list[Duty]:
    """The duties of several services that share one process."""
    return [duty for build in services.values() for duty in build(app)]
