"""The circuit breaker: when a dependency is called again, and with how much work."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from shared.breaker import Breaker, State
from shared.errors import Dependency, DependencyDown, Misconfigured, Unavailable
from shared.health import Health


class _Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.s)

    def monotonic(self) -> float:
        return self.s


def _breaker(dependency: Dependency = "torrentino") -> tuple[Breaker, _Clock]:
    clock = _Clock()
    return Breaker(dependency, clock=clock, rng=random.Random(1)), clock


AWAY = DependencyDown("torrentino", "away")


def _fail_again(breaker: Breaker, clock: _Clock, error: Unavailable) -> float:
    """The next try fails too; the pause after it."""
    clock.s += breaker.wait_s()
    breaker.failed(error)
    return breaker.wait_s()


def test_recovery_is_gradual() -> None:
    """After an outage it is given 1, 2, 4, 8 items, and only then all."""
    breaker, _ = _breaker()
    assert breaker.allowance(16) == 16
    breaker.failed(AWAY)
    assert (breaker.state, breaker.ok) == (State.OPEN, False)
    given = []
    for _ in range(5):
        breaker.succeeded()
        given.append(breaker.allowance(16))
    assert given == [1, 2, 4, 8, 16]
    assert breaker.closed


def test_a_failure_while_it_recovers_opens_it_again() -> None:
    """It is given 1 item again, and the pauses continue to grow if it did no work."""
    breaker, clock = _breaker()
    breaker.failed(AWAY)
    first = breaker.wait_s()
    clock.s += first
    breaker.succeeded()
    breaker.failed(AWAY)
    assert breaker.state == State.OPEN
    assert breaker.allowance(16) == 1
    assert breaker.wait_s() > first


def test_work_that_succeeds_resets_the_pauses() -> None:
    """A second success is work done: the next outage is a new one."""
    breaker, clock = _breaker()
    for _ in range(10):
        _fail_again(breaker, clock, AWAY)
    breaker.succeeded()
    breaker.succeeded()
    breaker.failed(AWAY)
    assert breaker.wait_s() <= 0.5


@pytest.mark.parametrize(
    ("error", "first_s", "longest_s"),
    [
        (AWAY, 0.5, 30),
        (DependencyDown("postgres", "away"), 0.5, 5),
        (DependencyDown("nats", "away"), 0.5, 5),
        (Misconfigured("torrentino", "the key is refused"), 2, 60),
    ],
)
def test_pauses_grow_to_a_bound(error: Unavailable, first_s: float, longest_s: float) -> None:
    """Each failed try waits longer, with jitter; a wrong setting is tried less often."""
    breaker, clock = _breaker(error.dependency)
    pauses = [_fail_again(breaker, clock, error) for _ in range(100)]
    assert first_s / 2 <= pauses[0] <= first_s
    assert all(pause <= longest_s for pause in pauses)
    assert max(pauses[-20:]) > longest_s * 0.8
    assert len(set(pauses[-20:])) == 20


def test_many_that_fail_at_once_are_one_failure() -> None:
    """Eight concurrent calls that fail do not make the pause of eight failures."""
    breaker, clock = _breaker()
    for _ in range(8):
        breaker.failed(AWAY)
    assert breaker.wait_s() <= 0.5
    clock.s += 1
    assert breaker.wait_s() == 0


def test_one_probe_at_a_time() -> None:
    """During a probe all others wait; a probe may end without a verdict."""
    breaker, clock = _breaker()
    breaker.failed(AWAY)
    clock.s += breaker.wait_s()
    states = []
    with breaker.probing():
        states.append(breaker.state)
        assert breaker.wait_s() > 0
    states.append(breaker.state)
    assert states == [State.HALF_OPEN, State.OPEN]
    assert breaker.wait_s() == 0


def test_it_reports_since_when_and_until_when() -> None:
    """Since the first failure, until the next try."""
    breaker, clock = _breaker()
    clock.s = 100
    breaker.failed(AWAY)
    since = breaker.since
    assert since == clock.now()
    for _ in range(5):
        _fail_again(breaker, clock, AWAY)
    assert breaker.since == since
    assert breaker.next_try_at == clock.now() + timedelta(seconds=breaker.wait_s())
    breaker.succeeded()
    assert breaker.since == clock.now() > since
    assert breaker.next_try_at is None


def test_a_wrong_setting_is_an_alarm() -> None:
    """The alarm differs from an outage, and ends with the failure."""
    health = Health(_Clock())
    health.failed(Misconfigured("torrentino", "the key is refused"))
    condition = health.conditions()["torrentino"]
    assert (condition.ok, condition.alarm) == (False, "configuration")
    health.up("torrentino")
    assert health.conditions()["torrentino"].alarm is None
    health.down("torrentino", "away")
    assert health.conditions()["torrentino"].alarm is None


def test_an_old_failure_is_no_news() -> None:
    """The failure of a call that began before the breaker opened does not fail the next try."""
    health = Health(_Clock())
    failed_at = health.now()
    assert health.is_news(AWAY, at=failed_at)
    assert not health.is_news(AWAY, at=failed_at)
    assert health.is_news(ValueError("a bug"), at=failed_at)


def test_a_failure_from_before_its_end_is_no_news() -> None:
    """A failure that is reported late does not mark a dependency that has come back since."""
    clock = _Clock()
    health = Health(clock)
    health.up("torrentino")
    failed_at = health.now()
    health.failed(AWAY)
    clock.s += 10
    health.up("torrentino")
    assert not health.is_news(AWAY, at=failed_at)
    clock.s += 10
    assert health.is_news(AWAY, at=health.now())
