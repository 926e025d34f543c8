"""How long a failed attempt waits before the next one."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shared.errors import ErrorType

# Retries after which another one is useless, whatever MAX_RETRIES allows: a fifth search does not
# find what four did not find, and what an administrator rejected stays rejected.
_RETRY_CEILING = {ErrorType.NOT_FOUND: 3, ErrorType.REJECTED: 0, ErrorType.CANCELLED: 2}


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential back-off with jitter.

    The pause after n earlier ones is `first_s * multiplier**n`, at most `longest_s`, and then
    shorter by a random part of it, up to `jitter`. So `longest_s` is never exceeded.
    """

    first_s: float
    longest_s: float
    multiplier: float = 2.0
    jitter: float = 0.5

    def pause_s(self, earlier: int, rng: random.Random) -> float:
        """Seconds to wait after `earlier` pauses in a row."""
        return self.grown_s(earlier) * rng.uniform(1 - self.jitter, 1)

    def grown_s(self, earlier: int) -> float:
        """The pause without its jitter."""
        try:
            grown = self.first_s * self.multiplier**earlier
        except OverflowError:
            grown = self.longest_s
        return min(grown, self.longest_s)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When an item is retried, and how often, by the cause of its failure."""

    max_retries: int
    initial_s: float
    multiplier: float
    max_s: float
    rng: random.Random

    def allows(self, error_type: ErrorType, retry_count: int) -> bool:
        """Whether an item that has been retried `retry_count` times may be retried again."""
        ceiling = _RETRY_CEILING.get(error_type, self.max_retries)
        return retry_count < min(ceiling, self.max_retries)

    def delay_s(self, retry_count: int) -> float:
        """Seconds until the retry that follows `retry_count` earlier ones."""
        backoff = Backoff(
            first_s=self.initial_s, longest_s=self.max_s, multiplier=self.multiplier, jitter=0.2
        )
        return backoff.pause_s(retry_count, self.rng)
