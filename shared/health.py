"""What this process knows of the health of what it depends on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from shared.breaker import Breaker, State
from shared.clock import Clock
from shared.errors import (
    Dependency,
    DependencyDown,
    Misconfigured,
    StatementAborted,
    Unavailable,
)
from shared.metrics import CIRCUIT_STATE, DEPENDENCY_MISCONFIGURED, DEPENDENCY_UP

log = structlog.get_logger()

Alarm = Literal["configuration"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How a dependency is, and since when; when it is called again, if it is unavailable.

    The alarm "configuration": waiting does not help, an operator has to change a setting.
    """

    ok: bool
    detail: str
    since: datetime
    state: State
    next_try_at: datetime | None
    alarm: Alarm | None


class Health:
    """The circuit breakers of this process; a change is logged once."""

    def __init__(self, clock: Clock, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (jitter, not secrets)
        self._breakers: dict[Dependency, Breaker] = {}
        self._heard: set[Dependency] = set()

    def breaker(self, dependency: Dependency) -> Breaker:
        """The one breaker of this process for a dependency."""
        if dependency not in self._breakers:
            made = Breaker(dependency, clock=self._clock, rng=self._rng)
            self._breakers[dependency] = made
        return self._breakers[dependency]

    def now(self) -> datetime:
        """The time by which failures are compared."""
        return self._clock.now()

    def up(self, dependency: Dependency) -> None:
        """The dependency has just answered."""
        breaker = self.breaker(dependency)
        came_back = not breaker.ok
        breaker.succeeded()
        self._note(breaker)
        if came_back:
            log.info("dependency_up", dependency=dependency)

    def down(self, dependency: Dependency, detail: str) -> None:
        """The dependency has just failed to answer."""
        self.failed(DependencyDown(dependency, detail))

    def failed(self, error: Unavailable) -> None:
        """The dependency has just failed to answer, or refused us.

        It has not where it only ended a statement: that is logged.
        """
        if isinstance(error, StatementAborted):
            log.warning("statement_aborted", statement=error.statement, detail=error.detail)
            return
        breaker = self.breaker(error.dependency)
        was_ok, before = breaker.ok, alarm_of(breaker.error)
        breaker.failed(error)
        self._note(breaker)
        alarm = alarm_of(error)
        if was_ok or alarm != before:
            level, extra = (40, {"alarm": alarm}) if alarm else (30, {})
            log.log(
                level, "dependency_down", dependency=error.dependency, detail=error.detail, **extra
            )

    def is_news(self, error: Exception, *, at: datetime) -> bool:
        """Whether a failure at the earlier time `at` is news; if so, the breaker opens.

        False where the dependency is known to be away, or has come back since: an old failure
        must not stop the next try.
        """
        if isinstance(error, StatementAborted) or not isinstance(error, Unavailable):
            return True
        breaker = self.breaker(error.dependency)
        came_back = error.dependency in self._heard and breaker.since > at
        known = not breaker.ok or came_back
        if not known:
            self.failed(error)
        return not known

    def conditions(self) -> dict[str, Condition]:
        """Every dependency that has answered or failed."""
        return {name: _condition(self._breakers[name]) for name in sorted(self._heard)}

    def _note(self, breaker: Breaker) -> None:
        self._heard.add(breaker.dependency)
        DEPENDENCY_UP.labels(breaker.dependency).set(breaker.ok)
        CIRCUIT_STATE.labels(breaker.dependency).set(breaker.state)
        alarm = alarm_of(breaker.error)
        DEPENDENCY_MISCONFIGURED.labels(breaker.dependency).set(alarm == "configuration")


def alarm_of(error: Unavailable | None) -> Alarm | None:
    """What an operator has to do about a failure, if waiting is not enough."""
    return "configuration" if isinstance(error, Misconfigured) else None


def _condition(breaker: Breaker) -> Condition:
    return Condition(
        ok=breaker.ok,
        detail="ok" if breaker.error is None else breaker.error.detail,
        since=breaker.since,
        state=breaker.state,
        next_try_at=breaker.next_try_at,
        alarm=alarm_of(breaker.error),
    )
