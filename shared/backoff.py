"""How long a failed attempt waits before the next one."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shared.errors import ErrorType

# Attempts beyond which repeating is pointless whatever MAX_RETRIES allows: a search that found
# nothing three times will not find it on the fourth, and what a person rejected stays rejected.
_RETRY_CEILING = {ErrorType.NOT_FOUND: 3, ErrorType.REJECTED: 0, ErrorType.CANCELLED: 2}


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter, and a budget by cause.

    The n-th retry waits `initial_s * multiplier**n`, at most `max_s`, then up to 20 % less:
    jitter only shortens, so that `max_s` stays a bound.
    """

    max_retries: int
    initial_s: float
    multiplier: float
    max_s: float

    def allows(self, error_type: ErrorType, retry_count: int) -> bool:
        """Whether an item that has been retried `retry_count` times may try once more."""
        ceiling = _RETRY_CEILING.get(error_type, self.max_retries)
        return retry_count < min(ceiling, self.max_retries)

    def delay_s(self, retry_count: int, rng: random.Random) -> float:
        """Seconds until the retry that follows `retry_count` earlier ones."""
        # The exponent is capped because a float overflows long before the bound matters.
        grown = self.initial_s * self.multiplier ** min(retry_count, 64)
        return min(grown, self.max_s) * rng.uniform(0.8, 1.0)
