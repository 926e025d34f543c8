"""What this process knows of the health of what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog

from shared.clock import Clock
from shared.metrics import DEPENDENCY_UP

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Condition:
    """How a dependency is, and since when."""

    ok: bool
    detail: str
    since: datetime


class Health:
    """The last word of each dependency; a change is logged once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._conditions: dict[str, Condition] = {}

    def up(self, dependency: str) -> None:
        """The dependency has just answered."""
        self._set(dependency, ok=True, detail="ok")

    def down(self, dependency: str, detail: str) -> None:
        """The dependency has just failed to answer, or refused us."""
        self._set(dependency, ok=False, detail=detail)

    def conditions(self) -> dict[str, Condition]:
        """Every dependency that has been heard of."""
        return dict(self._conditions)

    def _set(self, dependency: str, *, ok: bool, detail: str) -> None:
        before = self._conditions.get(dependency)
        changed = before is None or before.ok is not ok
        since = self._clock.now() if changed or before is None else before.since
        self._conditions[dependency] = Condition(ok=ok, detail=detail, since=since)
        DEPENDENCY_UP.labels(dependency).set(ok)
        if changed and not (ok and before is None):
            log.log(
                20 if ok else 30,
                "dependency_up" if ok else "dependency_down",
                dependency=dependency,
                detail=detail,
            )
