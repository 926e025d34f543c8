"""What each state of a ticket means: all 14 of them, and what is none of them."""

from __future__ import annotations

import pytest

from services.poller.ticket_verdict import (
    GONE,
    AskAgain,
    Ended,
    Follow,
    GiveUp,
    NextCandidate,
    Verdict,
    Wait,
    is_nothing_found,
    refusal_of,
    untrusted,
    verdict_of,
)
from shared.acquisition.ticket_reads import LISTED, LIVE
from shared.errors import ErrorType
from shared.states import Stage
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket


def ticket(state: str, **fields: object) -> RemoteTicket:
    return RemoteTicket.from_json(
        {"id": "t", "dest_path": "/in/t", "state": {"type": state, **fields}}
    )


FOLLOWED = {
    "pending": Stage.SEARCHING,
    "acquiring": Stage.SEARCHING,
    "auto_approved": Stage.SEARCHING,
    "approved": Stage.SEARCHING,
    "pending_retry": Stage.SEARCHING,
    "needs_approval": Stage.NEEDS_APPROVAL,
    "downloading": Stage.DOWNLOADING,
    "converting": Stage.PROCESSING,
    "placing": Stage.PROCESSING,
}
ENDINGS = ("completed", "acquisition_failed", "failed", "rejected", "cancelled")


def test_all_14_states_are_in_the_table() -> None:
    """L-36: no state of Torrentino is without a rule of its own."""
    assert len(RemoteState) == 14
    assert {*FOLLOWED, *ENDINGS} == set(RemoteState)
    assert not any(isinstance(verdict_of(ticket(state)), Wait) for state in RemoteState)


@pytest.mark.parametrize(("state", "stage"), FOLLOWED.items())
def test_work_under_way_is_followed(state: str, stage: Stage) -> None:
    """While Torrentino works, or waits for a person, the item shows where."""
    assert verdict_of(ticket(state)) == Follow(stage=stage)


def test_completed_is_collected() -> None:
    """A completed ticket's files can be fetched."""
    assert verdict_of(ticket("completed")) == Ended()


SEARCH_FAILED = (
    "Search failed: Search backend connection failed: error sending request for url"
    " (http://jackett:9117/api?apikey=0123456789abcdef&Query=x)"
)


@pytest.mark.parametrize(
    ("state", "fields", "error_type", "withdraw"),
    [
        ("acquisition_failed", {"reason": "No suitable candidates found"}, "not_found", True),
        ("acquisition_failed", {"reason": "No candidates found"}, "not_found", True),
        ("acquisition_failed", {"reason": "No queries generated"}, "rejected", True),
        ("acquisition_failed", {"reason": "Query building failed: x"}, "rejected", True),
        ("acquisition_failed", {"reason": "Configuration error: x"}, "rejected", True),
        ("acquisition_failed", {"reason": "LLM not configured but required"}, "rejected", True),
        ("acquisition_failed", {"reason": "something new"}, "unknown", True),
        ("acquisition_failed", {}, "unknown", True),
        ("failed", {"error": "All 2 candidates failed to add. Last: x"}, "connection", False),
        ("failed", {"error": "Download stalled: tried 5 candidates"}, "stalled", False),
        ("failed", {"error": "Conversion failed: Conversion failed: x"}, "corruption", False),
        ("failed", {"error": "Placement failed: x"}, "storage", False),
        ("failed", {"error": "Failed to start pipeline: x"}, "storage", False),
        ("failed", {"error": "something new"}, "unknown", False),
        ("failed", {"error": None}, "unknown", False),
        ("rejected", {"reason": None}, "rejected", False),
        ("cancelled", {"reason": "by hand"}, "cancelled", True),
    ],
)
def test_a_failure_is_sorted_by_its_cause(
    state: str, fields: dict[str, object], error_type: str, withdraw: bool
) -> None:
    """Each way to fail has its error_type; what is not terminal at Torrentino is withdrawn."""
    action = verdict_of(ticket(state, **fields))
    assert isinstance(action, GiveUp | Ended)
    assert action.failure is not None
    assert action.failure.error_type == ErrorType(error_type)
    placed = not str(fields.get("error")).startswith(("Conversion", "Placement"))
    assert isinstance(action, GiveUp) is placed, "what is not placed may be had all the same"
    if isinstance(action, GiveUp):
        assert action.withdraw is withdraw
        assert action.withdraw is (state not in ENDED - {"cancelled"})


@pytest.mark.parametrize("state", list(RemoteState))
def test_what_was_downloaded_without_a_hash_is_held_and_never_collected(state: str) -> None:
    """An empty hash holds the items while Torrentino works, with a reason that says what to do;
    what completes ends the attempt; every other state means what it always means."""
    remote = ticket(state, info_hash="", error="Placement failed: x")
    action = untrusted(remote)
    match state:
        case "downloading" | "converting" | "placing":
            assert isinstance(action, Follow)
            assert action.stage is Stage.NEEDS_APPROVAL
            assert "cancel the ticket and retry" in (action.reason or "")
        case "completed" | "failed":
            assert isinstance(action, GiveUp)
            assert action.failure.error_type is ErrorType.NOT_FOUND
        case _:
            assert action is None
    assert isinstance(untrusted(ticket("failed", error="Download stalled: x")), GiveUp)
    assert untrusted(ticket("downloading", info_hash="a" * 40)) is None


def test_only_a_search_that_found_nothing_found_nothing() -> None:
    """An album's ticket continues by track without a torrent, and not without a search."""
    assert is_nothing_found(ticket("acquisition_failed", reason="No suitable candidates found"))
    assert not is_nothing_found(ticket("acquisition_failed", reason="Search failed: away"))
    assert not is_nothing_found(ticket("acquisition_failed"))
    assert not is_nothing_found(ticket("failed", error="No candidates found"))


@pytest.mark.parametrize("reason", [SEARCH_FAILED, "LLM error: 503"])
def test_when_torrentino_cannot_search_no_attempt_is_burnt(reason: str) -> None:
    """L-41: an outage behind Torrentino asks again later, with the API key redacted."""
    action = verdict_of(ticket("acquisition_failed", reason=reason))
    assert isinstance(action, AskAgain)
    assert action.withdraw
    assert "0123456789abcdef" not in action.reason


CLIENT_AWAY = (
    "All 5 candidates failed to add. Last error: API error: error sending request for url"
    " (http://qbittorrent:8080/api/v2/torrents/add?apikey=0123456789abcdef)"
)


def test_a_torrent_client_that_is_away_burns_no_attempt() -> None:
    """Live §2.5: known by its words, which a link that is gone does not have; without its keys."""
    action = verdict_of(ticket("failed", error=CLIENT_AWAY))
    assert isinstance(action, AskAgain)
    assert not action.withdraw, "it has ended"
    assert "0123456789abcdef" not in action.reason
    for other in ("API error: URL returned status: 404", "Torrent client error: request timeout"):
        error = f"All 2 candidates failed to add. Last error: {other}"
        assert isinstance(verdict_of(ticket("failed", error=error)), GiveUp), other


def test_a_ticket_that_is_gone_is_asked_for_again() -> None:
    """L-36: 404 burns no attempt, and there is nothing to withdraw."""
    assert isinstance(GONE, AskAgain)
    assert not GONE.withdraw


def offering(state: str, *hashes: str, **fields: object) -> RemoteTicket:
    return ticket(state, candidates=[{"info_hash": each} for each in hashes], **fields)


@pytest.mark.parametrize("state", list(RemoteState))
def test_a_good_source_is_never_refused(state: str) -> None:
    """A ticket without a blocked torrent is left alone, whatever it shows."""
    remote = offering(state, "b", "c", info_hash="b")
    assert refusal_of(remote, seen="b", blocked=frozenset({"a"})) is None
    assert refusal_of(ticket(state, info_hash="a"), seen="a", blocked=frozenset()) is None


def test_a_blocked_torrent_gives_way_to_the_next_candidate() -> None:
    """While another candidate is left, Torrentino continues with it; then the attempt is over."""
    bad = frozenset({"a"})
    action = refusal_of(offering("downloading", "a", "b", info_hash="a"), seen=None, blocked=bad)
    assert action == NextCandidate(info_hash="a")
    for remote in (
        offering("downloading", "a", info_hash="a"),
        ticket("downloading", info_hash="a"),
        offering("auto_approved", "a"),
        offering("approved", "a"),
        offering("needs_approval", "a"),
        ticket("completed"),
        ticket("failed", error="Placement failed: a folder"),
    ):
        action = refusal_of(remote, seen="a", blocked=bad)
        assert isinstance(action, GiveUp), remote
        assert action.failure.error_type is ErrorType.NOT_FOUND
        assert action.failure.evidence == {"blocked": ["a"]}
        assert action.withdraw is (remote.state not in ENDED)
    assert refusal_of(ticket("completed"), seen=None, blocked=bad) is None
    assert refusal_of(ticket("failed", error="All 2 failed"), seen="a", blocked=bad) is None
    assert refusal_of(offering("needs_approval", "a", "b"), seen=None, blocked=bad) is None


@pytest.mark.parametrize("state", ["from_the_future", "COMPLETED", "Completed", " "])
def test_an_unknown_state_is_watched(state: str) -> None:
    """L-22, L-36: an unknown state is neither an end nor progress."""
    action: Verdict = verdict_of(ticket(state))
    assert action == Wait()


def test_the_lists_cover_the_states() -> None:
    """Live tickets are all but the ended; cancelled and rejected ones are read one by one."""
    assert set(LIVE) == set(RemoteState) - ENDED
    assert set(RemoteState) - set(LISTED) == {"cancelled", "rejected", "approved"}
