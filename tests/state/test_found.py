"""Lives that a search, or thinking, has found to matter, each step by step.

The rules of the machine are called one after another, with the model and the invariants looked at
after each; the last step lets all work end.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from services.fetcher_writer import store
from services.ticketer import store as ticketer_store
from shared.bus.subjects import REQUEST_CANCEL, REQUEST_TRACK
from shared.db import moves
from shared.states import LIVE_DOWNLOADS, in_sql
from tests.state import fates
from tests.state.machine import Json, Machine
from tests.state.setting import TRACKS

BODY: Json = {"v": 1, "request_id": "t1", "user_id": "ann", "priority": 2, "track_id": TRACKS[0]}


def live(machine: type[Machine], *steps: Callable[[Machine], None]) -> None:
    """Go through these steps, and then to the end of all work."""
    run = machine()
    run.begin()
    try:
        for step in steps:
            step(run)
            run.holds()
    except BaseException:
        run.runner.run(run.setting.end())
        raise
    run.teardown()


def asked(run: Machine) -> None:
    run.send(0, REQUEST_TRACK, BODY)


def goes_on(copy: int) -> Callable[[Machine], None]:
    return lambda run: run.held_worker_goes_on(copy=copy)


def late(worker: str, point: str) -> Callable[[Machine], None]:
    """Copy A stands still until its lease is over, and copy B does its work."""
    return lambda run: run.worker_is_late(copy=0, what=(worker, point), jump_s=300)


def ready(run: Machine) -> None:
    asked(run)
    run.step(0, "ticketer")
    run.meet_one(0, fates.GOOD)
    run.step(0, "poller")


@pytest.mark.parametrize(
    ("worker", "point"),
    [
        ("fetcher", "before looking"),
        ("fetcher", "after collecting"),
        ("fetcher", "before placing"),
    ],
)
def test_a_late_fetcher_places_nothing(machine: type[Machine], worker: str, point: str) -> None:
    """Another copy has placed the file meanwhile: what the late one has is dropped."""
    live(machine, ready, late(worker, point), goes_on(0))


def test_a_late_answer_to_a_post_is_dropped(machine: type[Machine]) -> None:
    """The ticket was found by its path meanwhile; there is one."""
    live(machine, asked, late("ticketer", "after the POST"), goes_on(0))


def test_a_late_post_leaves_one_ticket(machine: type[Machine]) -> None:
    """A ticketer that was frozen just before its POST makes a second ticket, and takes it back."""
    live(machine, asked, late("ticketer", "before the POST"), goes_on(0))


def _both_about_to_place(run: Machine) -> None:
    run.worker_is_held(copy=0, what=("fetcher", "before placing"))
    run.time_passes(jump_s=61)
    run.step(1, "reaper")
    run.worker_is_held(copy=1, what=("fetcher", "before placing"))


def test_of_two_about_to_place_the_holder_does(machine: type[Machine]) -> None:
    """Both copies have a verified file in hand; only the claim of the second one counts."""
    live(machine, ready, _both_about_to_place, goes_on(0), goes_on(1))


def _fetched(run: Machine) -> None:
    ready(run)
    run.step(0, "fetcher")


def _withdrawn(run: Machine) -> None:
    run.send(1, REQUEST_CANCEL, {"v": 1, "request_id": "t1", "user_id": "ann"})


def _asked_again(run: Machine) -> None:
    run.send(1, REQUEST_TRACK, BODY | {"request_id": "t2"})
    run.step(1, "ticketer")


def _ticketed(run: Machine) -> None:
    asked(run)
    run.step(0, "ticketer")


Life = tuple[Callable[[Machine], None], ...]
TWO_PLACE: Life = (ready, _both_about_to_place, goes_on(0), goes_on(1))
TAKEN_BACK_LATE: Life = (_fetched, _withdrawn)
ONE_TICKET = f"ot.state IN ({in_sql(LIVE_DOWNLOADS)})"
AGAIN: Life = (_ticketed, _withdrawn, _asked_again)


@pytest.mark.parametrize("life", [TAKEN_BACK_LATE, AGAIN], ids=["too late", "asked again"])
def test_withdrawing(machine: type[Machine], life: Life) -> None:
    """A placed file stays; and a new ticket waits for the end of the one that was withdrawn."""
    live(machine, *life)


@pytest.mark.parametrize(
    ("queries", "query", "guard", "life"),
    [
        (vars(store), "WRITTEN_BY", "fence = $2", TWO_PLACE),
        (moves.SQL, "cancel", "q.stage = ANY($7)", TAKEN_BACK_LATE),
        (vars(ticketer_store), "FRESH", ONE_TICKET, AGAIN),
    ],
    ids=["fence of placing", "COMPLETED is final", "one ticket at a time"],
)
def test_a_missing_guard_is_noticed(
    machine: type[Machine],
    monkeypatch: pytest.MonkeyPatch,
    *,
    queries: dict[str, str],
    query: str,
    guard: str,
    life: Life,
) -> None:
    """The same lives fail without the guard: the tests above can fail."""
    sql = queries[query]
    assert sql.count(guard) == 1
    monkeypatch.setitem(queries, query, sql.replace(guard, NO_GUARD[guard]))
    # The database refuses the move by itself where the transition table has no such edge.
    with pytest.raises((AssertionError, asyncpg.CheckViolationError)):
        live(machine, *life)


# They still name the parameter, whose type PostgreSQL must know.
NO_GUARD = {
    "fence = $2": "$2::bigint IS NOT NULL",
    "q.stage = ANY($7)": "$7::text[] IS NOT NULL",
    ONE_TICKET: "false",
}
