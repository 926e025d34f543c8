"""What a commit is followed by: the relay publishes its events, the next services look for work."""

from __future__ import annotations

import asyncio
from typing import Protocol

from shared.bus.subjects import Wake


class Waker(Protocol):
    """Sends wake-ups, or drops them: `shared.bus.nats.Bus`."""

    async def wake(self, kind: Wake) -> None:
        """Hint that there is work of this kind."""
        ...


class Announcer:
    """Call `announce` after each commit that moved an item, a download or a scan.

    Correctness does not depend on it: the relay and every service sweep as well. A call that is
    left out costs latency, up to a sweep's interval.
    """

    def __init__(self, bus: Waker, relay_wake: asyncio.Event) -> None:
        self._bus = bus
        self._relay_wake = relay_wake

    async def announce(self, *work: Wake) -> None:
        """Wake this process's relay, then the services that have such work; raises nothing."""
        self._relay_wake.set()
        for kind in work:
            await self._bus.wake(kind)
