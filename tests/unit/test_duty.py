"""Periodic duties: when they run, and the health that they report."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection

from shared.breaker import State
from shared.clock import SystemClock
from shared.duty import PeriodicDuty
from shared.errors import Dependency, DependencyDown
from shared.health import Health
from tests.support.waits import eventually


def _duty(
    run_once: Callable[[], object],
    *,
    interval_s: float = 3600,
    health: Health | None = None,
    needs: Collection[Dependency] = (),
) -> PeriodicDuty:
    async def once() -> int:
        result = run_once()
        assert isinstance(result, int)
        return result

    return PeriodicDuty(
        "test",
        once,
        interval_s=interval_s,
        health=health or Health(SystemClock()),
        rng=random.Random(1),
        needs=needs,
    )


class _Script:
    """Gives one answer a run; sets `stop` with the last, so that the duty ends."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.stop = asyncio.Event()
        self.runs = 0

    def __call__(self) -> int:
        answer = self.answers[self.runs]
        self.runs += 1
        if self.runs == len(self.answers):
            self.stop.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _ran(script: _Script) -> Callable[[], Awaitable[bool]]:
    async def has_run() -> bool:
        return script.runs > 0

    return has_run


async def _ends(duty: PeriodicDuty, stop: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await duty.run(stop)


async def test_runs_again_at_once_while_there_is_work() -> None:
    """After a run that did something the next one does not wait for the interval."""
    script = _Script(5, 5, 1, 0)
    await _ends(_duty(script), script.stop)
    assert script.runs == 4


async def test_a_wake_up_ends_the_wait() -> None:
    """A wake-up starts a run long before the interval is over."""
    script = _Script(0, 0)
    duty = _duty(script)
    task = asyncio.create_task(_ends(duty, script.stop))
    await eventually(_ran(script))
    duty.wake.set()
    await task
    assert script.runs == 2


async def test_a_wake_up_during_a_run_is_not_lost() -> None:
    """A wake-up in the middle of a run starts another run."""
    script = _Script(0, 0)
    duty: PeriodicDuty

    def run() -> int:
        if script.runs == 0:
            duty.wake.set()
        return script()

    duty = _duty(run)
    await _ends(duty, script.stop)
    assert script.runs == 2


async def test_the_interval_starts_a_run_without_a_wake_up() -> None:
    """L-35: hints may all be lost; the sweep comes anyway."""
    script = _Script(0, 0, 0)
    await _ends(_duty(script, interval_s=0.01), script.stop)
    assert script.runs == 3


async def test_a_bug_does_not_end_the_duty() -> None:
    """After an unexpected exception the duty continues."""
    script = _Script(ValueError("a bug"), 0)
    await _ends(_duty(script), script.stop)
    assert script.runs == 2


async def test_pauses_after_bugs_grow_to_a_bound() -> None:
    """Each bug in a row pauses longer, with jitter, up to a bound; a success resets the pause."""
    bug = ValueError("a bug")
    answers: list[int | Exception] = [bug] * 100
    duty = _duty(_Script(*answers, 0, bug))
    pauses = [await duty.step() or 0.0 for _ in answers]
    assert all(0 < pause <= 30 for pause in pauses)
    assert pauses[0] <= 0.5
    assert max(pauses[-20:]) > 30 * 0.8
    assert await duty.step() is None
    assert 0 < (await duty.step() or 0.0) <= 0.5


async def test_a_failure_marks_the_dependency_and_a_success_unmarks_postgres() -> None:
    """The health that /metrics shows recovers by work, without a request to /readyz."""
    health = Health(SystemClock())
    duty = _duty(_Script(DependencyDown("postgres", "away"), 0, 0), health=health)
    await duty.step()
    assert not health.conditions()["postgres"].ok
    await duty.step()
    assert health.conditions()["postgres"].ok


async def test_one_duty_probes_and_all_continue() -> None:
    """Of the duties that need an unavailable dependency one tries; its success wakes the others."""
    health = Health(SystemClock())
    health.down("postgres", "away")
    breaker = health.breaker("postgres")
    asked, answer = asyncio.Event(), asyncio.Event()
    others = [_Script(0) for _ in range(3)]

    async def ask() -> int:
        asked.set()
        await answer.wait()
        return 0

    first = PeriodicDuty("first", ask, interval_s=3600, health=health, rng=random.Random(1))
    stop = asyncio.Event()
    running = asyncio.create_task(first.run(stop))
    await asked.wait()
    assert breaker.state == State.HALF_OPEN
    waiting = [
        asyncio.create_task(_ends(_duty(other, health=health), other.stop)) for other in others
    ]
    await asyncio.sleep(0)
    assert [other.runs for other in others] == [0, 0, 0]
    answer.set()
    await asyncio.gather(*waiting)
    assert [other.runs for other in others] == [1, 1, 1]
    stop.set()
    await running


async def test_a_probe_without_a_verdict_lets_another_one_try() -> None:
    """After a run that did not call the dependency another duty may probe it."""
    health = Health(SystemClock())
    health.down("torrentino", "away")
    duty = _duty(_Script(0, 0), health=health, needs=["torrentino"])
    assert await duty.step() is None
    assert health.breaker("torrentino").state == State.OPEN


async def test_the_stop_ends_a_pause_at_once() -> None:
    """The stop does not wait for the pause after a failure."""
    failed, clock = asyncio.Event(), _StillClock()
    health = Health(clock)
    breaker = health.breaker("torrentino")
    while breaker.wait_s() < 10:
        clock.s += breaker.wait_s()
        health.down("torrentino", "away")
    clock.s += breaker.wait_s()

    def run() -> int:
        failed.set()
        raise DependencyDown("torrentino", "away")

    duty, stop = _duty(run, health=health), asyncio.Event()
    task = asyncio.create_task(duty.run(stop))
    await failed.wait()
    assert breaker.wait_s() > 5
    stop.set()
    async with asyncio.timeout(1):
        await task


class _StillClock(SystemClock):
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def monotonic(self) -> float:
        return self.s


async def test_the_stop_lets_the_run_in_hand_end() -> None:
    """A stop during a run starts no other run, and does not cancel it."""
    script = _Script(1)
    await _ends(_duty(script), script.stop)
    assert script.runs == 1
