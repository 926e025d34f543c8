"""Whether the clock of the database has jumped, by a clock of this process that never does."""

from __future__ import annotations

import structlog

from shared.clock import Clock

log = structlog.get_logger()

# A clock that is set right by less is no jump; waits and leases are longer.
_TOLERANCE_S = 10.0


class ClockWatch:
    """Says for how long no lease may be taken to have run out.

    After a jump, and after the machine was suspended, every lease looks old, though its worker may
    be alive. The workers renew them within `lease_s`.
    """

    def __init__(self, clock: Clock, *, lease_s: float) -> None:
        self._clock = clock
        self._lease_s = lease_s
        # The database's time minus that of this process, when it was seen last.
        self._ahead_s: float | None = None
        self._trusted_from = float("-inf")

    def trusts(self, database_now_s: float) -> bool:
        """Whether leases can be judged by this time of the database, in Unix seconds."""
        now_s = self._clock.monotonic()
        ahead_s, before_s = database_now_s - now_s, self._ahead_s
        self._ahead_s = ahead_s
        if before_s is not None and abs(ahead_s - before_s) > _TOLERANCE_S:
            log.warning("database_clock_jumped", by_s=round(ahead_s - before_s, 1))
            self._trusted_from = now_s + self._lease_s
        return now_s >= self._trusted_from
