"""How a test waits: for what it expects, never for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# What comes at once is seen at once, and what takes long is not asked for fifty times a second.
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.05


async def eventually(
    look: Callable[[], Awaitable[T]],
    until: Callable[[T], bool] = bool,
    *,
    within_s: float = 30,
) -> T:
    """What `look` gives as soon as `until` holds for it; fails with the last look otherwise."""
    last: T | None = None
    pause_s = _FIRST_PAUSE_S
    try:
        async with asyncio.timeout(within_s):
            while True:
                last = await look()
                if until(last):
                    return last
                await asyncio.sleep(pause_s)
                pause_s = min(1.2 * pause_s, _LONGEST_PAUSE_S)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s; last seen: {last!r}") from None
