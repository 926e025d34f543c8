"""How a service lives: settings once, duties side by side, a stop that finishes or hands back.

A duty is anything with `run(stop)`. `Loop` makes one from a `run_once()`: it runs when it is woken
or its interval is over, pauses with growing waits while a dependency is away, and ends when
`stop` is set and the run in hand is done.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from shared import logs
from shared.app import App, Duty, make_app
from shared.errors import DownloadsError, Hold
from shared.health import Health
from shared.metrics import LOOP_RUNS
from shared.ops import OpsServer
from shared.settings import SERVICES, Service, SettingsError, load

log = structlog.get_logger()

_LONGEST_PAUSE_S = 30.0
# How long the last publishing and the closing of connections may take beyond the grace.
_CLOSING_S = 5.0


class Loop:
    """Runs `run_once` when woken, and at the latest every `interval_s`.

    `run_once` returns how much it did; as long as that is not 0 it runs again at once. A `Hold`
    pauses the loop, longer each time up to 30 s, and marks the dependency as down.
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
            LOOP_RUNS.labels(self.name, "held").inc()
            return self._pause()
        except Exception:
            # A bug must not end the service: what it was doing comes back by its lease.
            log.exception("duty_failed", duty=self.name)
            LOOP_RUNS.labels(self.name, "failed").inc()
            return self._pause()
        self._failures = 0
        LOOP_RUNS.labels(self.name, "done").inc()
        return 0.0 if done else None

    def _pause(self) -> float:
        self._failures += 1
        grown = min(_LONGEST_PAUSE_S, 0.5 * 2.0 ** min(self._failures - 1, 10))
        return grown * self._rng.uniform(0.5, 1.0)


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the events is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def serve(app: App, duties: Iterable[Duty], stop: asyncio.Event) -> None:
    """Run the duties until `stop`, give them the grace, then hand back and close.

    Raises:
        BaseExceptionGroup: a duty ended with an error; the others were stopped first.
    """
    shared: list[Duty] = [
        Loop(
            "relay",
            app.relay.run_once,
            interval_s=app.settings.sweep_interval_s,
            health=app.health,
            rng=app.rng,
            wake=app.relay.wake,
        )
    ]
    bus_stop = asyncio.Event()
    bus = asyncio.create_task(app.bus.run(bus_stop), name="bus")
    try:
        await _until_stopped([*duties, *shared], stop, grace_s=app.settings.shutdown_grace_s)
    finally:
        await _close(app)
        bus_stop.set()
        await bus


async def _until_stopped(duties: Sequence[Duty], stop: asyncio.Event, *, grace_s: float) -> None:
    tasks = [asyncio.create_task(duty.run(stop), name=duty.name) for duty in duties]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        # One duty that ends by itself ends the service: half of it would only look alive.
        stop.set()
        await asyncio.wait(tasks, timeout=grace_s)
    finally:
        stopped.cancel()
        for task in tasks:
            if not task.done():
                log.info("duty_cut_short", duty=task.get_name())
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise ExceptionGroup("a duty ended with an error", failed)


async def _close(app: App) -> None:
    try:
        async with asyncio.timeout(_CLOSING_S):
            while await app.relay.run_once():
                pass
    except (Hold, TimeoutError) as error:
        log.info("outbox_left_to_the_reaper", error=str(error))
    for close in app.closers:
        await close()
    await app.bus.close()
    await app.database.close()


def on_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set `stop`; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
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

    async def run() -> None:
        stop = asyncio.Event()
        on_signals(stop)
        app = make_app(settings, name=name)
        await serve(app, [*build_all(app, services), OpsServer(app)], stop)

    try:
        asyncio.run(run())
    except* DownloadsError as group:
        sys.exit("\n".join(str(error) for error in group.exceptions))


def build_all(app: App, services: dict[Service, Build]) -> list[Duty]:
    """The duties of several services that share one process."""
    return [duty for build in services.values() for duty in build(app)]
