"""How a test waits: for what it expects, never for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]],
    until: Callable[[T], bool] = bool,
    *,
    within_s: float = 30,
) -> T:
    """What `look` gives as soon as `until` holds for it; fails with the last look otherwise."""
    last: T | None = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                last = await look()
                if until(last):
                    return last
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s; last seen: {last!r}") from None
