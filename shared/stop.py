"""A stop is an event that ends a duty. These are the loop that obeys it and the waits it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")

# One turn of a loop: gets the stop, returns the seconds until the next turn, None for no other.
Turn = Callable[[asyncio.Event], Awaitable[float | None]]


async def run_until(stop: asyncio.Event, turn: Turn) -> None:
    """Take turns until the stop. It ends a pause at once; a turn ends by itself."""
    while not stop.is_set():
        pause_s = await turn(stop)
        if pause_s is None:
            return
        if pause_s > 0:
            await first_of(stop, timeout_s=pause_s)


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Return when one of the events is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def unless(stop: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """The result of `work`, or None when the stop came first; `work` is then cancelled."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
    return None if working.cancelled() else working.result()
