"""The loop that obeys a stop, and the waits that a stop ends."""

from __future__ import annotations

import asyncio

from shared.stop import first_of, run_until, unless

_FOREVER_S = 3600.0


async def _ends(stop: asyncio.Event, *pauses_s: float | None) -> int:
    """Run a loop whose turns return these pauses; how many turns it took."""
    turns = 0

    async def turn(_stop: asyncio.Event) -> float | None:
        nonlocal turns
        turns += 1
        return pauses_s[turns - 1]

    async with asyncio.timeout(10):
        await run_until(stop, turn)
    return turns


async def test_the_loop_ends_with_a_turn_that_wants_no_other() -> None:
    """A turn returns the pause before the next one, or None for no other."""
    assert await _ends(asyncio.Event(), 0.0, 0.01, None) == 3


async def test_a_loop_that_is_stopped_takes_no_turn() -> None:
    """The stop is obeyed before the first turn as well."""
    stop = asyncio.Event()
    stop.set()
    assert await _ends(stop) == 0


async def test_the_stop_ends_a_pause() -> None:
    """The loop does not wait for the end of a pause."""
    stop, turned = asyncio.Event(), asyncio.Event()

    async def turn(_stop: asyncio.Event) -> float:
        turned.set()
        return _FOREVER_S

    running = asyncio.create_task(run_until(stop, turn))
    await turned.wait()
    stop.set()
    await asyncio.wait_for(running, 10)


async def test_the_stop_lets_a_turn_end() -> None:
    """A turn in hand is not cancelled."""
    stop = asyncio.Event()

    async def turn(given: asyncio.Event) -> float:
        given.set()
        await first_of(asyncio.Event(), timeout_s=0.01)
        ended.set()
        return _FOREVER_S

    ended = asyncio.Event()
    await asyncio.wait_for(run_until(stop, turn), 10)
    assert ended.is_set()


async def test_first_of_leaves_no_tasks() -> None:
    """Thousands of waits leave no task behind."""
    one, other = asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    one.set()
    for _ in range(100):
        await first_of(one, other, timeout_s=1)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_the_stop_cancels_work_that_it_interrupts() -> None:
    """Interrupted work has ended when `unless` returns; finished work gives its result."""
    stop, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()
        return 1

    async def quick() -> int:
        return 2

    assert await unless(asyncio.Event(), quick()) == 2
    assert await unless(stop, work()) is None
    assert cleaned.is_set()
