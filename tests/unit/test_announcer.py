"""One call after a commit wakes the relay and the services that have work now."""

from __future__ import annotations

import asyncio

from shared.announcer import Announcer
from shared.bus.nats import Bus
from shared.bus.subjects import Wake
from shared.clock import SystemClock
from shared.health import Health


class Recorder:
    """Notes each wake-up, and whether the relay was awake by then."""

    def __init__(self, relay_wake: asyncio.Event) -> None:
        self._relay_wake = relay_wake
        self.woken: list[tuple[Wake, bool]] = []

    async def wake(self, kind: Wake) -> None:
        self.woken.append((kind, self._relay_wake.is_set()))


async def test_the_relay_is_woken_before_the_services() -> None:
    """Each service once, in the order given."""
    relay_wake = asyncio.Event()
    recorder = Recorder(relay_wake)
    await Announcer(recorder, relay_wake).announce("fetch", "ticket")
    assert recorder.woken == [("fetch", True), ("ticket", True)]


async def test_without_work_the_relay_alone_is_woken() -> None:
    """A commit that no other service waits for has events all the same."""
    relay_wake = asyncio.Event()
    recorder = Recorder(relay_wake)
    await Announcer(recorder, relay_wake).announce()
    assert relay_wake.is_set()
    assert recorder.woken == []


async def test_without_nats_the_relay_is_woken_all_the_same() -> None:
    """A wake-up that cannot be sent is dropped: the services sweep."""
    relay_wake = asyncio.Event()
    bus = Bus("nats://127.0.0.1:1", name="test", health=Health(SystemClock()))
    await Announcer(bus, relay_wake).announce("poll")
    assert relay_wake.is_set()
