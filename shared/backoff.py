"""How long a failed attempt waits before the next one."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shared.errors import ErrorType

# Retries beyond which repeating is pointless whatever MAX_RETRIES allows: what four searches did
# not find, a fifth will not, and what a person rejected stays rejected.
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
        try:
            grown = self.initial_s * self.multiplier**retry_count
        except OverflowError:
            grown = self.max_s
        return min(grown, self.max_s) * rng.uniform(0.8, 1.0)
