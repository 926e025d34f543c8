"""The wire shapes of the events, field by field as docs/api.md describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.bus.subjects import COMMAND_SCAN, event_subject
from shared.errors import InvalidRequest
from shared.events import (
    AlbumCompleted,
    AudioReady,
    Event,
    ItemMoved,
    RequestAccepted,
    RequestRejected,
    ScanOrder,
    StartScan,
    envelope,
    parse,
    parse_order,
)

ACCEPTED = RequestAccepted(
    request_id="r",
    user_id="42",
    content="album",
    content_id="a",
    content_name="Album",
    artist_name=None,
    queued=1,
    already_queued=2,
    already_available=3,
    item_ids=("i", "j"),
)
REJECTED = RequestRejected(
    request_id="r",
    user_id=None,
    content="track",
    content_id="t",
    problem="Unknown",
    reason="the catalog has no track t",
)
READY = AudioReady(
    item_id="i",
    track_id="t",
    album_id=None,
    audio_uri="audio/t.flac",
    ext="flac",
    codec="flac",
    duration_ms=1,
    bitrate_kbps=2,
    size_bytes=3,
    sha256="f",
    request_ids=("r",),
    user_ids=(),
)
COMPLETED = AlbumCompleted(
    album_id="a",
    album_name="Album",
    artist_name="Artist",
    request_ids=("r",),
    user_ids=("42",),
    completed=1,
    failed=2,
    already_available=3,
)
MOVED = ItemMoved(
    item_id="i",
    track_id="t",
    album_id=None,
    status="DOWNLOADING",
    stage="searching",
    from_stage="ticketing",
    attempt=1,
    retry_count=0,
    service="ticketer",
    reason="asked",
    error_type=None,
    ticket={"ticket": "x", "torrentino_ticket_id": "y"},
)


@pytest.mark.parametrize(
    ("event", "kind", "body"),
    [
        (
            ACCEPTED,
            "request.accepted",
            {
                "request_id": "r", "user_id": "42", "album_id": "a", "content_name": "Album",
                "artist_name": None, "queued": 1, "already_queued": 2, "already_available": 3,
                "item_ids": ["i", "j"], "broken": [],
            },
        ),
        (
            REJECTED,
            "request.rejected",
            {
                "request_id": "r", "user_id": None, "track_id": "t", "problem": "Unknown",
                "reason": "the catalog has no track t",
            },
        ),
        (
            COMPLETED,
            "album.completed",
            {
                "album_id": "a", "album_name": "Album", "artist_name": "Artist",
                "request_ids": ["r"], "user_ids": ["42"], "completed": 1, "failed": 2,
                "already_available": 3,
            },
        ),
        (
            MOVED,
            "item",
            {
                "item_id": "i", "track_id": "t", "album_id": None, "status": "DOWNLOADING",
                "stage": "searching", "from_stage": "ticketing", "attempt": 1, "retry_count": 0,
                "service": "ticketer", "reason": "asked", "error_type": None, "ticket": "x",
                "torrentino_ticket_id": "y",
            },
        ),
    ],
)  # fmt: skip
def test_an_event_has_the_documented_body(event: Event, kind: str, body: dict[str, Any]) -> None:
    """Exactly these fields, beside those of the envelope."""
    assert (event.kind, event.data()) == (kind, body)


def test_audio_ready_has_the_fields_of_the_documented_example() -> None:
    """The example in docs/api.md is the envelope and the event, no more, no less."""
    page = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
    example = page.split("pezzottify.download.event.audio.ready.")[1].split("```")[1]
    whole = envelope(event_id="e", seq=1, at=2) | READY.data()
    assert json.loads(example.removeprefix("json")).keys() == whole.keys()


def test_a_scan_that_is_refused_names_no_content() -> None:
    """Neither a track nor an album."""
    scan = RequestRejected(
        request_id="s", user_id=None, content=None, content_id=None, problem="Conflict", reason="x"
    )
    assert scan.data().keys() == {"request_id", "user_id", "problem", "reason"}


def test_an_outbox_row_belongs_to_what_it_is_about() -> None:
    """`audio.ready` to its item; what a request led to, to the request; a refusal to nothing."""
    rows = [(e.outbox_item, e.outbox_request) for e in (READY, ACCEPTED, COMPLETED, REJECTED)]
    assert rows == [("i", None), (None, "r"), (None, "r"), (None, None)]


@pytest.mark.parametrize(
    ("ids", "subject"),
    [
        ((), "pezzottify.download.event.kind"),
        (("a-b_1",), "pezzottify.download.event.kind.a-b_1"),
        ((None,), "pezzottify.download.event.kind._"),
        (("a.b *>",), "pezzottify.download.event.kind.a_b___"),
    ],
)
def test_an_id_is_one_token_of_a_subject(ids: tuple[str | None, ...], subject: str) -> None:
    """Whatever it holds."""
    assert event_subject("kind", *ids) == subject


def test_a_scan_is_started_as_the_command_says() -> None:
    """The order is what HTTP would give; without "queue": true it is a dry run."""
    body = {"v": 1, "request_id": "s", "scope": "album", "album_id": "abcdef", "limit": 5}
    command = parse(COMMAND_SCAN, json.dumps(body).encode())
    assert isinstance(command, StartScan)
    assert (command.request_id, command.user_id, command.queue) == ("s", None, False)
    assert command.order() == parse_order({"scope": "album", "album_id": "abcdef", "limit": 5})
    assert type(command.order()) is ScanOrder


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"v": 2}, "v"),
        ({"v": True}, "v"),
        ({"request_id": None}, "request_id"),
        ({"user_id": "a b"}, "user_id"),
        ({"queue": "yes"}, "queue"),
        ({"limitt": 5}, "limitt"),
        ({"scope": "album"}, "body"),
        ({"scope": "album", "album_id": "../../x"}, "album id"),
    ],
)
def test_a_scan_command_that_is_none_names_the_field(change: dict[str, Any], where: str) -> None:
    """The reason beside the dead message says what was wrong."""
    body = {"v": 1, "request_id": "s"} | change
    with pytest.raises(InvalidRequest, match=f"^{where}"):
        parse(COMMAND_SCAN, json.dumps(body).encode())
