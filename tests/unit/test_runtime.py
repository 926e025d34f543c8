"""The loop that every background duty runs in, and the health that it reports."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from shared.breaker import State
from shared.clock import SystemClock
from shared.errors import DependencyDown
from shared.health import Health
from shared.runtime import Loop, first_of
from tests.support.waits import eventually


def _loop(
    run_once: Callable[[], object], *, interval_s: float = 3600, health: Health | None = None
) -> Loop:
    async def once() -> int:
        result = run_once()
        assert isinstance(result, int)
        return result

    return Loop(
        "test",
        once,
        interval_s=interval_s,
        health=health or Health(SystemClock()),
        rng=random.Random(1),
    )


class _Script:
    """Gives one answer a run; sets `stop` with the last, so that the loop ends by itself."""

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
    async def look() -> bool:
        return script.runs > 0

    return look


async def _ends(loop: Loop, stop: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await loop.run(stop)


async def test_runs_again_at_once_while_there_is_work() -> None:
    """As long as a run did something, the next follows without waiting for the interval."""
    script = _Script(5, 5, 1, 0)
    await _ends(_loop(script), script.stop)
    assert script.runs == 4


async def test_a_wake_up_ends_the_wait() -> None:
    """A wake-up starts a run long before the interval is over."""
    script = _Script(0, 0)
    loop = _loop(script)
    task = asyncio.create_task(_ends(loop, script.stop))
    await eventually(_ran(script))
    loop.wake.set()
    await task
    assert script.runs == 2


async def test_a_wake_up_during_a_run_is_not_lost() -> None:
    """What arrives while a run looks elsewhere gets a run of its own."""
    script = _Script(0, 0)
    loop: Loop

    def run() -> int:
        if script.runs == 0:
            loop.wake.set()
        return script()

    loop = _loop(run)
    await _ends(loop, script.stop)
    assert script.runs == 2


async def test_the_interval_starts_a_run_without_a_wake_up() -> None:
    """L-35: hints may all be lost; the sweep comes anyway."""
    script = _Script(0, 0, 0)
    await _ends(_loop(script, interval_s=0.01), script.stop)
    assert script.runs == 3


async def test_a_bug_does_not_end_the_loop() -> None:
    """After an exception that nobody expected the loop goes on."""
    script = _Script(ValueError("a bug"), 0)
    await _ends(_loop(script), script.stop)
    assert script.runs == 2


async def test_pauses_after_bugs_grow_to_a_bound() -> None:
    """Each bug in a row waits longer, with jitter, up to a bound; success starts anew."""
    bug = ValueError("a bug")
    answers: list[int | Exception] = [bug] * 100
    loop = _loop(_Script(*answers, 0, bug))
    pauses = [await loop._step() or 0.0 for _ in answers]
    assert all(0 < pause <= 30 for pause in pauses)
    assert pauses[0] <= 0.5
    assert max(pauses[-20:]) > 30 * 0.8
    assert await loop._step() is None
    assert 0 < (await loop._step() or 0.0) <= 0.5


async def test_a_hold_marks_the_dependency_and_success_unmarks_postgres() -> None:
    """The health that /metrics shows recovers by work, without anybody asking /readyz."""
    health = Health(SystemClock())
    loop = _loop(_Script(DependencyDown("postgres", "away"), 0, 0), health=health)
    await loop._step()
    assert not health.conditions()["postgres"].ok
    await loop._step()
    assert health.conditions()["postgres"].ok


async def test_one_loop_asks_and_all_go_on() -> None:
    """Of the loops that need what is away only one tries; its success wakes the others."""
    health = Health(SystemClock())
    health.down("postgres", "away")
    breaker = health.breaker("postgres")
    asked, answer = asyncio.Event(), asyncio.Event()
    others = [_Script(0) for _ in range(3)]

    async def ask() -> int:
        asked.set()
        await answer.wait()
        return 0

    first = Loop("first", ask, interval_s=3600, health=health, rng=random.Random(1))
    stop = asyncio.Event()
    running = asyncio.create_task(first.run(stop))
    await asked.wait()
    assert breaker.state == State.HALF_OPEN
    waiting = [
        asyncio.create_task(_ends(_loop(other, health=health), other.stop)) for other in others
    ]
    await asyncio.sleep(0)
    assert [other.runs for other in others] == [0, 0, 0]
    answer.set()
    await asyncio.gather(*waiting)
    assert [other.runs for other in others] == [1, 1, 1]
    stop.set()
    await running


async def test_a_probe_without_a_verdict_lets_another_one_try() -> None:
    """A run that had nothing to ask keeps nobody from asking."""
    health = Health(SystemClock())
    health.down("torrentino", "away")
    loop = _loop(_Script(0, 0), health=health)
    loop._needs = frozenset({"postgres", "torrentino"})
    assert await loop._step() is None
    assert health.breaker("torrentino").state == State.OPEN


async def test_the_stop_ends_a_pause_at_once() -> None:
    """A loop that waits out a failure does not make the stop wait."""
    failed, health = asyncio.Event(), Health(SystemClock())
    health.breaker("torrentino")._failures = 20

    def run() -> int:
        failed.set()
        raise DependencyDown("torrentino", "away")

    loop, stop = _loop(run, health=health), asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    await failed.wait()
    stop.set()
    async with asyncio.timeout(1):
        await task


async def test_the_stop_lets_the_run_in_hand_end() -> None:
    """A stop during a run starts no other, and cuts nothing off."""
    script = _Script(1)
    await _ends(_loop(script), script.stop)
    assert script.runs == 1


async def test_first_of_leaves_no_tasks() -> None:
    """Waiting for events by the thousand collects no tasks."""
    one, other = asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    one.set()
    for _ in range(100):
        await first_of(one, other, timeout_s=1)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
