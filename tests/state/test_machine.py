"""Random lives of the queue against a model; CONTRIBUTING.md says how to search for longer."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from shared.db import enqueue
from tests.state.direct import DirectMachine
from tests.state.machine import Machine

# Slowness of a machine is no failure of the code.
_COMMON = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=True,
    stateful_step_count=30,
    phases=(Phase.generate, Phase.shrink),
)
PROFILES = {
    "quick": settings(_COMMON, max_examples=7),
    "deep": settings(_COMMON, max_examples=500, stateful_step_count=50),
}
DIRECT = {"quick": settings(_COMMON, max_examples=4), "deep": PROFILES["deep"]}


@pytest.mark.timeout(7200)
def test_any_life_of_the_queue(machine: type[Machine]) -> None:
    """Whatever happens in whatever order, model and invariants hold, and all work ends."""
    run_state_machine_as_test(machine, settings=PROFILES[os.environ.get("STATE_PROFILE", "quick")])


@pytest.mark.timeout(7200)
def test_any_life_of_our_own_downloads(direct_machine: type[DirectMachine]) -> None:
    """The same where we search, add and follow ourselves, now and then by tickets."""
    run_state_machine_as_test(
        direct_machine, settings=DIRECT[os.environ.get("STATE_PROFILE", "quick")]
    )


_JOINING = "FROM unnest($1::text[]) AS t (item_id)"
_NOT_JOINING = """
  FROM unnest($1::text[]) AS t (item_id)
 WHERE NOT EXISTS (SELECT 1 FROM item_requesters r WHERE r.item_id = t.item_id)
"""


@pytest.mark.timeout(300)
def test_a_planted_bug_is_found(machine: type[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine can fail: that a second requester is forgotten is found within 40 lives."""
    broken = enqueue.INSERT_REQUESTERS.replace(_JOINING, _NOT_JOINING)
    assert broken != enqueue.INSERT_REQUESTERS
    monkeypatch.setattr(enqueue, "INSERT_REQUESTERS", broken)
    only = (Phase.generate,)
    search = settings(PROFILES["quick"], max_examples=40, phases=only, derandomize=True)
    with pytest.raises(AssertionError, match="who waits for what"):
        run_state_machine_as_test(machine, settings=search)
