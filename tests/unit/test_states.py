"""The lifecycle table."""

from __future__ import annotations

import pytest

from shared.states import (
    CLAIMED_FROM,
    LEASED,
    REMOTE,
    STATUS_OF,
    TERMINAL,
    TRANSITIONS,
    Stage,
    Status,
    allowed_from,
    item_diagram,
)


def test_every_stage_has_a_status_and_a_row() -> None:
    """No stage is missing from a table."""
    assert set(STATUS_OF) == set(TRANSITIONS) == set(Stage)
    assert set(STATUS_OF.values()) == set(Status)


def test_completed_is_final() -> None:
    """L-03: nothing leads out of COMPLETED."""
    assert TRANSITIONS[Stage.COMPLETED] == frozenset()
    assert all(Stage.COMPLETED.value not in allowed_from(target) for target in Stage)


@pytest.mark.parametrize("stage", sorted(set(Stage) - TERMINAL))
def test_everything_parked_has_a_way_to_an_end(stage: Stage) -> None:
    """L-32: from every stage that is no end, an end can be reached."""
    reached, waiting = {stage}, [stage]
    while waiting:
        for target in TRANSITIONS[waiting.pop()] - reached:
            reached.add(target)
            waiting.append(target)
    assert reached >= TERMINAL


def test_every_stage_but_the_first_can_be_reached() -> None:
    """No stage stands in the table for nothing."""
    reachable = {target for targets in TRANSITIONS.values() for target in targets}
    assert reachable == set(Stage)


def test_no_stage_leads_to_itself() -> None:
    """The history has a row per move: a move changes the stage."""
    assert [stage for stage in Stage if stage in TRANSITIONS[stage]] == []


def test_what_a_worker_holds_has_a_way_back() -> None:
    """L-25: each leased stage goes back to where it was claimed from."""
    assert set(CLAIMED_FROM) == LEASED
    for stage, back in CLAIMED_FROM.items():
        assert back in TRANSITIONS[stage]
        assert back not in LEASED


def test_what_torrentino_works_on_is_downloading() -> None:
    """The plan's status of everything with a ticket at work is DOWNLOADING."""
    assert {STATUS_OF[stage] for stage in REMOTE | LEASED} == {Status.DOWNLOADING}


def test_the_diagram_has_every_edge_once() -> None:
    """The generated diagram is the table."""
    drawn = [line.strip() for line in item_diagram().splitlines() if "-->" in line]
    edges = {f"{stage} --> {target}" for stage in Stage for target in TRANSITIONS[stage]}
    ends = {"[*] --> queued", "completed --> [*]", "failed --> [*]"}
    assert sorted(drawn) == sorted({*ends, *edges})
