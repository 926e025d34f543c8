"""The supervisor of a process: runs its duties side by side; one that ends stops the others.

A stop takes as long as the grace at most: the duties finish, those that do not are cancelled and
hand back, the last events are published, and the connections are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import structlog

from shared.app import App
from shared.db.health_reports import Conditions
from shared.duty import Duty, PeriodicDuty
from shared.errors import Unavailable

log = structlog.get_logger()

# A connection that nothing has broken may lead to a server that was replaced.
_SERVER_CHECK_S = 30.0
# The end of the grace is kept for handing back, the last publishing and closing.
_CLOSING_S = 6.0
# The parts of it; a little is left for the end of the process itself.
_HAND_BACK, _FLUSH, _BUS, _CLOSE = 0.25, 0.25, 0.15, 0.15


async def serve(app: App, duties: Iterable[Duty], stop: asyncio.Event) -> None:
    """Run the duties until `stop`; then drain, hand back and close, all within the grace.

    Raises:
        ExceptionGroup: a duty ended with an error; the others were stopped first.
    """
    relay = PeriodicDuty.of(app, "relay", app.relay.run_once, wake=app.relay.wake, needs=["nats"])
    reports = Conditions(app.database, app.health, worker=app.worker)
    reporting = PeriodicDuty.of(app, "conditions", reports.run_once)
    checking = PeriodicDuty.of(
        app, "server of the database", partial(_check_server, app), interval_s=_SERVER_CHECK_S
    )
    grace_s = app.settings.shutdown_grace_s
    closing_s = min(_CLOSING_S, grace_s / 2)
    bus_stop = asyncio.Event()
    bus = asyncio.create_task(app.bus.run(bus_stop), name="bus")
    try:
        await _until_stopped(
            [*duties, relay, reporting, checking],
            stop,
            drain_s=grace_s - closing_s,
            hand_back_s=_HAND_BACK * closing_s,
        )
    finally:
        await _flush(app, reports, within_s=_FLUSH * closing_s)
        bus_stop.set()
        await asyncio.wait([bus], timeout=_BUS * closing_s)
        await _close(app, within_s=_CLOSE * closing_s)


async def _check_server(app: App) -> int:
    await app.database.check_server()
    return 0


async def _until_stopped(
    duties: Sequence[Duty], stop: asyncio.Event, *, drain_s: float, hand_back_s: float
) -> None:
    tasks = [asyncio.create_task(duty.run(stop), name=duty.name) for duty in duties]
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        # A process with half of its duties would only look alive.
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
    """Cancel the tasks that still run, and wait while they hand back."""
    if not tasks:
        return
    for task in tasks:
        log.info("duty_cut_short", duty=task.get_name())
        task.cancel("stopping")
    _, stuck = await asyncio.wait(tasks, timeout=within_s)
    for task in stuck:
        # The items that it holds come back by their leases.
        log.warning("duty_stuck", duty=task.get_name())


async def _flush(app: App, reports: Conditions, *, within_s: float) -> None:
    """Withdraw this process's health reports, and publish the last events."""
    try:
        async with asyncio.timeout(within_s):
            await reports.forget()
            while await app.relay.run_once():
                pass
    except (Unavailable, TimeoutError) as error:
        log.info("outbox_left_to_the_others", error=str(error) or "no time left")
    except Exception:
        log.exception("outbox_not_published")


async def _close(app: App, *, within_s: float) -> None:
    """Close every connection; one that does not close must not delay the end."""

    async def bounded(close: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(within_s):
                await close()
        except Exception:
            log.exception("not_closed", what=getattr(close, "__qualname__", str(close)))

    await asyncio.gather(*(bounded(close) for close in (*app.closers, app.database.close)))
