"""The crash search in every test run: two dozen schedules, which leave no point out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from shared.crashpoints import POINTS
from shared.settings import EVERY_SERVICE
from tests.crash.run import Result, logs_of, run
from tests.crash.schedule import FILE_PATH, SEARCHED, Schedule, at_points, by_seed, reachable
from tests.crash.zygote import Zygote

_ROOT = Path(__file__).parents[2]
_SEEDS = 5
# Where the helper is, which serves all of them.
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    """The helper that forks the services' processes."""
    helper = Zygote()
    await helper.start()
    yield helper
    await helper.stop()


def _passed(result: Result, folder: Path) -> None:
    """Fail with what replays the schedule and what its services said last."""
    if result.error is None:
        return
    ends = [f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in logs_of(folder)]
    replay = f"python -m tests.crash {result.schedule.replay}"
    result.error.add_note("\n".join([f"replay: {replay}", *ends]))
    raise result.error


@in_one_loop
@pytest.mark.parametrize("seed", range(_SEEDS))
async def test_schedule_loses_nothing(
    seed: int, zygote: Zygote, tmp_path: Path, database_url: str
) -> None:
    """I1 to I13 hold whatever of this schedule happens: deaths, freezes, lost messages."""
    result = await run(by_seed(seed, of=_SEEDS), zygote, tmp_path, database_url)
    _passed(result, tmp_path)


_UNHARMED = tuple(replace(process, kills=()) for process in at_points("relay.taken").processes)
PLANTED = {
    "complete before placing": (at_points("media.folders"), r"I[34]\b"),
    "place before verifying": (Schedule(replay="", processes=_UNHARMED), r"I[34]\b"),
    "forget other files": (Schedule(replay="", processes=_UNHARMED), r"I3\b|two files"),
    "take all for ours": (at_points("leftovers.noted"), r"I10\b"),
    "forget what was begun": (at_points("direct.added", plain=True), r"I11\b"),
}


@in_one_loop
@pytest.mark.parametrize("bug", PLANTED)
async def test_planted_mistake_is_found(
    bug: str, zygote: Zygote, tmp_path: Path, database_url: str
) -> None:
    """The search can fail: a mistake in the order of effects breaks an invariant."""
    schedule, breaks = PLANTED[bug]
    planted = replace(schedule, bug=bug, cleanup="all")
    result = await run(planted, zygote, tmp_path, database_url)
    assert result.error is not None, f"not found: {bug}"
    assert re.search(breaks, str(_cause(result.error))), result.error


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def test_every_point_is_used_once() -> None:
    """What is in POINTS is in the code, in one place, and nothing else is."""
    sources = [
        path.read_text()
        for package in ("services", "shared")
        for path in (_ROOT / package).rglob("*.py")
    ]
    used = Counter(name for text in sources for name in re.findall(r'\breached\("(.+?)"\)', text))
    assert dict(used) == dict.fromkeys(POINTS, 1)


def test_every_service_has_points() -> None:
    """Each service has points of its own, and all of them together have all."""
    of_all = {service: set(reachable([service])) for service in EVERY_SERVICE}
    relay = {point for point in POINTS if point.startswith("relay")}
    assert all(points - relay for points in of_all.values())
    assert set.union(*of_all.values()) == set(SEARCHED)


def test_schedules_of_a_run_leave_no_point_out() -> None:
    """The seeds that share the points among them cover all of them, with what reaches them."""
    shared = {point for seed in range(_SEEDS) for point in by_seed(seed, of=_SEEDS).points}
    assert shared >= set(SEARCHED)
    assert len(FILE_PATH) > 20
