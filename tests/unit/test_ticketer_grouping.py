"""Which items share a ticket: two of an album do, one has its own unless that has failed."""

from __future__ import annotations

from typing import Any

import pytest

from services.ticketer.groups import Group, grouped


def due(item_id: str, album_id: str | None = None, ask_next: str | None = None) -> Any:
    """A row of what is due."""
    return {"id": item_id, "album_id": album_id, "ask_next": ask_next}


def track(item_id: str) -> Group:
    return Group(kind="track", album_id=None, item_ids=(item_id,))


def album(album_id: str, *item_ids: str) -> Group:
    return Group(kind="album", album_id=album_id, item_ids=item_ids)


THREE = [due("1", "A"), due("2", "A"), due("3", "B")]


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [
        ("track", [track("1"), track("2"), track("3")]),
        ("auto", [album("A", "1", "2"), track("3")]),
        ("album", [album("A", "1", "2"), album("B", "3")]),
    ],
)
def test_how_many_items_a_ticket_serves(grouping: Any, expected: list[Group]) -> None:
    """TICKET_GROUPING: one; all of an album; or that from two on."""
    assert grouped(THREE, THREE, grouping) == expected


def test_what_waits_behind_rides_along_with_the_most_urgent() -> None:
    """Only the first of an album was among the most urgent; the rest of it comes with it."""
    assert grouped(THREE[:1], [*THREE[:2], due("9", "A")], "auto") == [album("A", "1", "2", "9")]


def test_after_an_album_that_did_not_have_it_a_track_is_asked_for_alone() -> None:
    """`ask_next` track: it neither leads nor joins an album's ticket."""
    rows = [due("1", "A", "track"), due("2", "A"), due("3", "A")]
    assert grouped(rows, rows, "auto") == [track("1"), album("A", "2", "3")]


def test_after_its_own_ticket_failed_a_single_track_is_asked_for_by_its_album() -> None:
    """`ask_next` album: also when it is the only one that waits."""
    rows = [due("1", "A", "album")]
    assert grouped(rows, rows, "auto") == [album("A", "1")]


@pytest.mark.parametrize(("grouping", "kind"), [("track", "track"), ("album", "album")])
def test_a_fixed_grouping_knows_no_other_kind(grouping: Any, kind: str) -> None:
    """Where only one kind is wanted, what failed is asked for by the same kind again."""
    other = "album" if kind == "track" else "track"
    rows = [due("1", "A", other)]
    assert [group.kind for group in grouped(rows, rows, grouping)] == [kind]


@pytest.mark.parametrize("grouping", ["auto", "album"])
def test_without_an_album_a_track_stands_alone(grouping: Any) -> None:
    """Singles that the catalog gives no album are never put together."""
    rows = [due("1"), due("2")]
    assert grouped(rows, rows, grouping) == [track("1"), track("2")]
