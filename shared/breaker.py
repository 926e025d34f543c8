"""A circuit breaker per dependency: who may ask it, how much, and when it is asked again.

    closed ──failure──▶ open ──its pause is over──▶ half-open: one probe
       ▲                 ▲ ▲                          │        │
       │                 │ └──────────failure─────────┘     success
       │                 │                                     ▼
       └──enough─────────└──────────failure────────────── recovering

The one place that knows how long to wait. A recovering dependency gets 1 call or item at a time,
then 2, 4, and so on with each success, so that what piled up does not knock it down again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import IntEnum

from shared.clock import Clock
from shared.errors import Dependency, Misconfigured, Unavailable

_FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# Asking these again costs nobody anything, and all work waits for their return.
_LONGEST_PAUSE_OWN_S = 5.0
_OWN: frozenset[Dependency] = frozenset({"postgres", "nats"})
# Until a person has changed a setting it is no use to ask; but it has to be noticed.
_FIRST_PAUSE_MISCONFIGURED_S = 2.0
_LONGEST_PAUSE_MISCONFIGURED_S = 60.0
# Others look whether a probe has ended, should nobody have told them.
_PROBE_S = 1.0

# What is there all at once or not at all needs no gradual return.
FULL: dict[Dependency, int] = {"torrentino": 16, "incoming": 8, "media": 8, "space": 8}


class State(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    RECOVERING = 1
    HALF_OPEN = 2
    OPEN = 3


def pause_s(failures: int, rng: random.Random, *, longest_s: float, first_s: float = 0.5) -> float:
    """The pause after so many failures in a row: doubled each time, up to half less by chance."""
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 10)) * rng.uniform(0.5, 1.0)


class Breaker:
    """What this process knows of one dependency; closed until a failure."""

    def __init__(self, dependency: Dependency, *, clock: Clock, rng: random.Random) -> None:
        self.dependency: Dependency = dependency
        self.state = State.CLOSED
        self.held: Unavailable | None = None
        self.since = clock.now()
        # Set while calls may be made: who waits for a return is woken by it.
        self.passable = asyncio.Event()
        self.passable.set()
        self._clock = clock
        self._rng = rng
        self._full = FULL.get(dependency, 1)
        self._allowed = self._full
        self._failures = 0
        self._retry_at = 0.0

    @property
    def ok(self) -> bool:
        """Whether it answered last."""
        return self.state in (State.CLOSED, State.RECOVERING)

    @property
    def next_try_at(self) -> datetime | None:
        """When it will be asked again; None while it is in use."""
        if self.ok:
            return None
        return self._clock.now() + timedelta(
            seconds=max(0.0, self._retry_at - self._clock.monotonic())
        )

    @property
    def closed(self) -> bool:
        """Whether it may be given all there is."""
        return self.state == State.CLOSED

    def allowance(self, most: int) -> int:
        """How many calls or items at once it may be given now, at most `most`, at least 1."""
        return most if self.state == State.CLOSED else min(most, self._allowed)

    def wait_s(self) -> float:
        """Seconds until it may be asked, 0 for now; `passable` may be set before."""
        if self.ok:
            return 0.0
        if self.state == State.HALF_OPEN:
            return _PROBE_S
        return max(0.0, self._retry_at - self._clock.monotonic())

    @contextmanager
    def probing(self) -> Iterator[None]:
        """While the block runs nobody else probes; it may end without a verdict."""
        mine = self.state == State.OPEN
        if mine:
            self.state = State.HALF_OPEN
        try:
            yield
        finally:
            if mine and self.state == State.HALF_OPEN:
                self.state = State.OPEN

    def failed(self, held: Unavailable) -> None:
        """It did not answer, or refused us. While it is known to be away that is no news."""
        was_ok = self.ok
        self.held = held
        if not was_ok and self._clock.monotonic() < self._retry_at:
            return
        if was_ok:
            self.since = self._clock.now()
        self.state = State.OPEN
        self.passable.clear()
        self._allowed = 1
        self._failures += 1
        self._retry_at = self._clock.monotonic() + self._pause_s(held)

    def succeeded(self) -> None:
        """It has answered: after an outage it is given a little more each time."""
        if self.state == State.CLOSED:
            return
        if not self.ok:
            self.since = self._clock.now()
            self.held = None
            self.state = State.RECOVERING
            self.passable.set()
        else:
            # Not at the first: that it answers a probe does not say that it can work.
            self._failures = 0
            self._allowed *= 2
        if self._allowed >= self._full:
            self.state, self._failures = State.CLOSED, 0

    def _pause_s(self, held: Unavailable) -> float:
        if isinstance(held, Misconfigured):
            first_s, longest_s = _FIRST_PAUSE_MISCONFIGURED_S, _LONGEST_PAUSE_MISCONFIGURED_S
        else:
            own = self.dependency in _OWN
            first_s, longest_s = _FIRST_PAUSE_S, _LONGEST_PAUSE_OWN_S if own else LONGEST_PAUSE_S
        return pause_s(self._failures, self._rng, longest_s=longest_s, first_s=first_s)
