"""A circuit breaker for each dependency: when it is called again, and with how much work.

    closed ──failure──▶ open ──its pause is over──▶ half-open: one probe
       ▲                 ▲ ▲                          │        │
       │                 │ └──────────failure─────────┘     success
       │                 │                                     ▼
       └──enough─────────└──────────failure────────────── recovering

No other module decides how long to wait. A recovering dependency gets 1 call or item at a time,
then 2, 4, and so on with each success, so that the backlog does not overload it again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import IntEnum

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import Dependency, Misconfigured, Unavailable

_PAUSES = Backoff(first_s=0.5, longest_s=30)
# Calling our own servers again is cheap, and all work waits for their return. So is a check whether
# the catalog server has its file open.
_PAUSES_OWN = Backoff(first_s=0.5, longest_s=5)
_OWN: frozenset[Dependency] = frozenset({"postgres", "nats", "catalog_write"})
# Calls fail until an operator changes a setting, and the change has to be noticed.
_PAUSES_MISCONFIGURED = Backoff(first_s=2, longest_s=60)
# How often the others check whether a probe has ended without a verdict.
_PROBE_S = 1.0

# Calls or items at once after which a dependency counts as recovered. The ones that are not listed
# are back with their first success.
FULL: dict[Dependency, int] = {
    "torrentino": 16,
    "incoming": 8,
    "media": 8,
    "media_write": 8,
    "space": 8,
}


class State(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    RECOVERING = 1
    HALF_OPEN = 2
    OPEN = 3


class Breaker:
    """What this process knows of one dependency; closed until a failure."""

    def __init__(self, dependency: Dependency, *, clock: Clock, rng: random.Random) -> None:
        self.dependency: Dependency = dependency
        self.state = State.CLOSED
        # The last failure, while the dependency is unavailable.
        self.error: Unavailable | None = None
        self.since = clock.now()
        # Set while calls may be made; it wakes the duties that wait for the dependency.
        self.passable = asyncio.Event()
        self.passable.set()
        self._clock = clock
        self._rng = rng
        self._full = FULL.get(dependency, 1)
        self._allowed = self._full
        self._failures = 0
        self.retry_at = 0.0

    @property
    def ok(self) -> bool:
        """Whether the last call was answered."""
        return self.state in (State.CLOSED, State.RECOVERING)

    @property
    def next_try_at(self) -> datetime | None:
        """When it is called again; None while it is in use."""
        if self.ok:
            return None
        return self._clock.now() + timedelta(
            seconds=max(0.0, self.retry_at - self._clock.monotonic())
        )

    @property
    def closed(self) -> bool:
        """Whether it may be given all work at once."""
        return self.state == State.CLOSED

    def allowance(self, most: int) -> int:
        """How many calls or items at once it may be given now, at most `most`, at least 1."""
        return most if self.state == State.CLOSED else min(most, self._allowed)

    def wait_s(self) -> float:
        """Seconds until it may be called, 0 for now; `passable` may be set before."""
        if self.ok:
            return 0.0
        if self.state == State.HALF_OPEN:
            return _PROBE_S
        return max(0.0, self.retry_at - self._clock.monotonic())

    @contextmanager
    def probing(self) -> Iterator[None]:
        """While the block runs no other duty probes; it may end without a verdict."""
        mine = self.state == State.OPEN
        if mine:
            self.state = State.HALF_OPEN
        try:
            yield
        finally:
            if mine and self.state == State.HALF_OPEN:
                self.state = State.OPEN

    def failed(self, error: Unavailable) -> None:
        """It did not answer, or refused us. While open, only a failure after its pause counts."""
        was_ok = self.ok
        self.error = error
        if not was_ok and self._clock.monotonic() < self.retry_at:
            return
        if was_ok:
            self.since = self._clock.now()
        self.state = State.OPEN
        self.passable.clear()
        self._allowed = 1
        self._failures += 1
        self.retry_at = self._clock.monotonic() + self._pause_s(error)

    def succeeded(self) -> None:
        """It has answered. After an outage each success doubles what it is given."""
        if self.state == State.CLOSED:
            return
        if not self.ok:
            self.since = self._clock.now()
            self.error = None
            self.state = State.RECOVERING
            self.passable.set()
        else:
            # Not at the first success: an answered probe does not prove that it can work.
            self._failures = 0
            self._allowed *= 2
        if self._allowed >= self._full:
            self.state, self._failures = State.CLOSED, 0

    def _pause_s(self, error: Unavailable) -> float:
        if isinstance(error, Misconfigured):
            pauses = _PAUSES_MISCONFIGURED
        else:
            pauses = _PAUSES_OWN if self.dependency in _OWN else _PAUSES
        return pauses.pause_s(self._failures - 1, self._rng)
