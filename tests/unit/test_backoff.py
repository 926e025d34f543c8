"""How long a failed attempt waits, and how often it may be repeated."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import Backoff, RetryPolicy
from shared.errors import ErrorType


def policy(
    *,
    max_retries: int = 8,
    initial_s: float = 60,
    multiplier: float = 2.5,
    max_s: float = 86_400,
) -> RetryPolicy:
    return RetryPolicy(
        max_retries=max_retries,
        initial_s=initial_s,
        multiplier=multiplier,
        max_s=max_s,
        rng=random.Random(1),
    )


@pytest.mark.parametrize(
    ("retry_count", "longest_s"),
    [(0, 60), (1, 150), (2, 375), (3, 937.5), (7, 36_621.09375), (8, 86_400), (99, 86_400)],
)
def test_waits_grow_to_a_bound_and_jitter_only_shortens(retry_count: int, longest_s: float) -> None:
    """The n-th wait is initial * multiplier**n at most, and at least four fifths of that."""
    drawn = policy()
    waits = [drawn.delay_s(retry_count) for _ in range(200)]
    assert all(0.8 * longest_s <= wait <= longest_s for wait in waits)
    assert max(waits) - min(waits) > 0.1 * longest_s


@given(
    first_s=st.floats(1e-3, 1e9),
    multiplier=st.floats(1, 1e300),
    longest_s=st.floats(1e-3, 1e9),
    jitter=st.floats(0, 1),
    earlier=st.integers(0, 5000),
    seed=st.integers(0, 2**32),
)
def test_a_pause_grows_within_its_bounds(
    *, first_s: float, multiplier: float, longest_s: float, jitter: float, earlier: int, seed: int
) -> None:
    """Whatever the parameters, a pause is `first_s * multiplier**n`, cut at `longest_s`, and up to
    the jitter shorter; it never exceeds `longest_s`."""
    backoff = Backoff(first_s=first_s, longest_s=longest_s, multiplier=multiplier, jitter=jitter)
    pause_s = backoff.pause_s(earlier, random.Random(seed))
    logarithm = math.log(first_s) + earlier * math.log(multiplier)
    whole_s = longest_s if logarithm >= math.log(longest_s) else math.exp(logarithm)
    assert pause_s <= longest_s
    assert whole_s * (1 - jitter) * (1 - 1e-6) <= pause_s <= whole_s * (1 + 1e-6)


@pytest.mark.parametrize(
    ("error_type", "allowed"),
    [
        (ErrorType.CONNECTION, 8),
        (ErrorType.TIMEOUT, 8),
        (ErrorType.PARSE, 8),
        (ErrorType.STORAGE, 8),
        (ErrorType.CORRUPTION, 8),
        (ErrorType.STALLED, 8),
        (ErrorType.UNKNOWN, 8),
        (ErrorType.NOT_FOUND, 3),
        (ErrorType.CANCELLED, 2),
        (ErrorType.REJECTED, 0),
    ],
)
def test_the_budget_depends_on_the_cause(error_type: ErrorType, allowed: int) -> None:
    """L-40: what repeating cannot mend ends sooner than MAX_RETRIES."""
    retries = [count for count in range(20) if policy().allows(error_type, count)]
    assert retries == list(range(allowed))


def test_max_retries_bounds_every_cause() -> None:
    """A smaller MAX_RETRIES holds for all causes."""
    assert [e for e in ErrorType if policy(max_retries=1).allows(e, 1)] == []
    assert [e for e in ErrorType if policy(max_retries=0).allows(e, 0)] == []
