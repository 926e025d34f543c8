"""What fails for one download alone, while its remote works for all others."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

# In a row; what is withdrawn is let go then.
MOST_FAILURES = 10
_FIRST_S = 5.0
_LONGEST_S = 600.0
# What has not failed for so long is forgotten.
_MOST_REMEMBERED = 1000


def pause_s(failures: int, *, first_s: float) -> float:
    """Seconds until what has failed so often in a row is tried again; the first pause doubles."""
    return min(first_s * 2.0 ** min(failures, 30), max(_LONGEST_S, first_s))


class Pauses:
    """Which removals of this process failed alone, and when each is tried again."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def is_over(self, key: str) -> bool:
        """Whether it may be tried now."""
        return self._now() >= self._until.get(key, 0.0)

    def failed(self, key: str, detail: str) -> None:
        """Pause for longer each time in a row. Not for an outage, which is of all."""
        if len(self._failures) >= _MOST_REMEMBERED:
            self._failures.clear()
            self._until.clear()
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._until[key] = self._now() + pause_s(failures - 1, first_s=_FIRST_S)
        log.warning("removal_failed", what=key, in_a_row=failures, detail=detail)

    def succeeded(self, key: str) -> None:
        """What is counted of it is forgotten."""
        self._failures.pop(key, None)
        self._until.pop(key, None)
