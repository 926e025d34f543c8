"""Whether the clock of the database has jumped, by a clock of this process that never does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from shared.clock import Clock

log = structlog.get_logger()

# A clock that is set right by less is no jump; waits and leases are longer.
_TOLERANCE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The database's time minus that of this process, and how long the answer took."""

    ahead_s: float
    took_s: float


class ClockWatch:
    """Says for how long no lease may be taken to have run out.

    After a jump, and after the machine was suspended, every lease looks old, though its worker may
    be alive. The workers renew them within `lease_s`.
    """

    def __init__(self, clock: Clock, *, lease_s: float) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._last: _Seen | None = None
        self._trusted_from = float("-inf")

    async def trusts(self, ask: Callable[[], Awaitable[float]]) -> bool:
        """Whether leases can be judged by the time of the database, in Unix seconds, that `ask`
        gives. A slow answer is no jump.
        """
        asked_s = self._clock.monotonic()
        database_s = await ask()
        now_s, before = self._clock.monotonic(), self._last
        self._last = seen = _Seen(ahead_s=database_s - asked_s, took_s=now_s - asked_s)
        if before is not None:
            jump_s = seen.ahead_s - before.ahead_s
            if abs(jump_s) > _TOLERANCE_S + seen.took_s + before.took_s:
                log.warning("database_clock_jumped", by_s=round(jump_s, 1))
                self._trusted_from = now_s + self._lease_s
        return now_s >= self._trusted_from
