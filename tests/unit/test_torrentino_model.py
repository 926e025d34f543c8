"""What we read out of Torrentino's tickets, and what we send to make one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.redaction import redact
from shared.torrentino.model import RemoteState, RemoteTicket, TicketRequest

HASH = "0123456789abcdef0123456789abcdef01234567"
SHOWN_FIELDS = (
    "progress_pct",
    "speed_bps",
    "eta_secs",
    "info_hash",
    "selected",
    "candidates",
    "candidate_idx",
    "stats",
    "reason",
    "error",
)


def ticket_json(**changes: Any) -> dict[str, Any]:
    return {
        "id": "t1",
        "state": {"type": "pending"},
        "priority": 100,
        "dest_path": "/media/incoming/t1",
        "updated_at": "2026-01-05T09:23:21.123456789+00:00",
    } | changes


@given(text=st.text())
def test_any_text_becomes_a_body(text: str) -> None:
    """Names come from the catalog: no character may break the request, and none is changed."""
    request = TicketRequest(
        description=text, artist=None, title=text, dest_path="/media/incoming/x", priority=0
    )
    body = json.loads(request.to_json())
    assert body["query_context"]["expected"] == {"type": "track", "title": text}


def test_a_lone_surrogate_is_sent_as_an_escape() -> None:
    """Torrentino rejects it with a 400; here it must not end in an encoding error."""
    request = TicketRequest(
        description="\ud800", artist=None, title="", dest_path="/x", priority=65_535
    )
    assert b"\\ud800" in request.to_json()


@pytest.mark.parametrize("priority", [-1, 65_536])
def test_a_priority_outside_the_range_is_a_bug(priority: int) -> None:
    """Torrentino stores 16 bits."""
    with pytest.raises(ValueError, match="65535"):
        TicketRequest(description="", artist=None, title="", dest_path="/x", priority=priority)


SELECTED = {
    "title": "A - B",
    "info_hash": HASH,
    "magnet_uri": f"magnet:?xt=urn:btih:{HASH}&tr=http%3A%2F%2Ft%2Fannounce%3Fpasskey%3Dp4ss",
    "size_bytes": 30_000_000,
    "score": 0.93,
}


def read(state: dict[str, Any]) -> RemoteTicket:
    return RemoteTicket.from_json(ticket_json(state=state))


def test_downloading() -> None:
    """Progress and size are those of the candidate being tried."""
    ticket = read(
        {
            "type": "downloading",
            "info_hash": HASH,
            "progress_pct": 45.5,
            "speed_bps": 1_000_000,
            "eta_secs": None,
            "candidate_idx": 1,
            "candidates": [SELECTED, SELECTED | {"size_bytes": 7}],
        }
    )
    assert (ticket.progress_pct, ticket.speed_bps, ticket.eta_s) == (45.5, 1_000_000, None)
    assert (ticket.info_hash, ticket.size_bytes) == (HASH, 7)
    assert ticket.updated_at is not None
    assert ticket.updated_at.isoformat() == "2026-01-05T09:23:21.123456+00:00"


def test_selected() -> None:
    """An approved ticket knows its torrent already."""
    ticket = read({"type": "auto_approved", "selected": SELECTED, "candidates": [SELECTED]})
    assert (ticket.info_hash, ticket.size_bytes) == (HASH, 30_000_000)


def test_an_empty_info_hash_is_none() -> None:
    """Torrentino then watches whichever torrent comes first."""
    assert read({"type": "downloading", "info_hash": "", "candidates": []}).info_hash is None


def test_completed() -> None:
    """The count and the bytes that the collected files are checked against."""
    stats = {"final_size_bytes": 500_000, "files_placed": 1, "total_download_bytes": 0}
    ticket = read({"type": "completed", "stats": stats})
    assert (ticket.files_placed, ticket.final_size_bytes) == (1, 500_000)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("acquisition_failed", "reason"),
        ("failed", "error"),
        ("pending_retry", "error"),
        ("cancelled", "reason"),
        ("rejected", "reason"),
    ],
)
def test_reasons_are_redacted(state: str, name: str) -> None:
    """The text of a failed search holds Jackett's URL with its key."""
    leak = "Search failed: error for url (http://jackett:9117/api?apikey=abc123def&Query=x)"
    reason = read({"type": state, name: leak}).reason
    assert reason == leak.replace("abc123def", "***")
    assert read({"type": state, name: None}).reason is None


def test_candidates_are_summaries() -> None:
    """For a person to choose from: no magnet links, whatever the server sends along."""
    candidates = [SELECTED | {"seeders": 5, "reasoning": "…"}, "junk"]
    ticket = read({"type": "needs_approval", "candidates": candidates, "recommended_idx": 0})
    assert ticket.candidates == [
        {"title": "A - B", "size_bytes": 30_000_000, "seeders": 5, "score": 0.93}
    ]


def test_unknown_states_and_fields_are_read() -> None:
    """A newer server may have more of both."""
    ticket = RemoteTicket.from_json(ticket_json(state={"type": "dreaming"}, colour="red"))
    assert ticket.state == "dreaming"
    assert ticket.candidates == []


def test_a_ticket_shows_no_passkeys_when_printed() -> None:
    """Tickets end up in tracebacks and assertion messages."""
    assert "p4ss" not in repr(read({"type": "approved", "selected": SELECTED}))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    fields=st.fixed_dictionaries(
        {"type": st.sampled_from(sorted(RemoteState))},
        optional={
            name: json_values | st.just([{"size_bytes": -1, "title": None}])
            for name in SHOWN_FIELDS
        },
    ),
    updated_at=json_values,
    priority=json_values,
)
def test_no_state_is_unreadable(fields: dict[str, Any], updated_at: Any, priority: Any) -> None:
    """Whatever stands in a field that we only show, the ticket can be read and shown."""
    ticket = RemoteTicket.from_json(
        ticket_json(state=fields, updated_at=updated_at, priority=priority)
    )
    assert ticket.progress_pct is None or 0 <= ticket.progress_pct <= 100
    for size in (ticket.speed_bps, ticket.eta_s, ticket.size_bytes, ticket.files_placed):
        assert size is None or size >= 0
    assert isinstance(ticket.candidates, list)
    assert ticket.reason is None or isinstance(ticket.reason, str)


@pytest.mark.parametrize(
    "text",
    [
        "http://jackett/dl/x/?jackett_apikey=SECRETSECRETSECRET&path=Q2",
        "http://tracker/announce?passkey=SECRETSECRETSECRET&x=1",
        "magnet:?xt=urn:btih:abc&tr=udp%3A%2F%2Ft%2FSECRETSECRETSECRET%2Fannounce&dn=x",
        "failed: https://tracker.example/SECRETSECRETSECRET/announce answered 404",
        "url%3Dhttp%3A%2F%2Fj%3Fapikey%3DSECRETSECRETSECRET%26q%3Dx",
        '{"api_key": "SECRETSECRETSECRET", "n": 1}',
        "X-Api-Key: SECRETSECRETSECRET",
        "Authorization: Bearer SECRETSECRETSECRET",
        "http://user:SECRETSECRETSECRET@host/",
        "torrent_pass=SECRETSECRETSECRET, authkey=SECRETSECRETSECRET",
    ],
)
def test_redact(text: str) -> None:
    """Keys go, and what surrounds them stays."""
    redacted = redact(text)
    assert "SECRET" not in redacted
    assert "***" in redacted
    assert redacted[:3] == text[:3]


def test_redact_leaves_other_text_alone() -> None:
    """Reasons are classified by their words."""
    text = "Download stalled: tried 5 candidates over 3 rounds (~12.9 hours) http://a.b/c?d=e"
    assert redact(text) == text
