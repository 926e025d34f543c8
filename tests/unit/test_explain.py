"""What an item waits for: each stage shows the dependencies that stop it, and what is next."""

from __future__ import annotations

from typing import Any

import pytest

from services.ingest.explain import needed, paused, waiting_for, waits_until
from shared.errors import Dependency
from shared.states import TERMINAL, Stage

SEARCH = {"torrentino", "torrent_client", "searcher"}
COLLECT = {"media", "media_write", "space", "incoming", "ffmpeg", "catalog"}
# By stage: without what an item of a ticket stands still.
STOPPED_BY: dict[Stage, set[str]] = {
    Stage.QUEUED: SEARCH,
    Stage.RETRY_WAIT: SEARCH,
    Stage.TICKETING: SEARCH,
    Stage.SEARCHING: {"torrentino"},
    Stage.NEEDS_APPROVAL: {"torrentino"},
    Stage.DOWNLOADING: {"torrentino"},
    Stage.PROCESSING: {"torrentino"},
    Stage.READY: COLLECT,
    Stage.FETCHING: COLLECT,
    # An administrator chooses over HTTP; nothing but ingest itself is needed.
    Stage.NEEDS_CHOICE: set(),
    Stage.VERIFYING: COLLECT,
    Stage.CONVERTING: COLLECT,
    Stage.COMPLETED: set(),
    Stage.FAILED: set(),
}
DEPENDENCIES: tuple[Dependency, ...] = Dependency.__args__  # type: ignore[attr-defined]
ENDLESS = {Stage.NEEDS_APPROVAL, Stage.NEEDS_CHOICE}


def item(stage: Stage, **more: object) -> dict[str, Any]:
    """A row of an item, as far as it is explained."""
    row = {"stage": stage.value, "way": None, "waits": False, "reason": None, "tombstone": False}
    times = {"lease_until": None, "progressed_at": 1000.0, "due_at": 2000}
    return row | times | more


def away(*names: str) -> dict[str, Any]:
    """The health reports when these dependencies are unavailable, and no other."""
    return {
        name: {
            "ok": name not in names,
            "detail": f"no {name}",
            "since": 1,
            "alarm": None,
            "next_try_at": None,
        }
        for name in DEPENDENCIES
    }


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_shows_each_dependency_that_stops_it(stage: Stage) -> None:
    """Also a conversion without ffmpeg; and what does not stop the item is not shown."""
    for name in DEPENDENCIES:
        shown = waiting_for(item(stage, way="tickets"), away(name))
        stopped = name in STOPPED_BY[stage]
        assert (shown == f"{name}: no {name}") is stopped, (name, shown)


def test_an_alarm_of_the_incoming_folder_stops_ticketing_too() -> None:
    """F17: nothing is downloaded to where no fetcher-writer finds it."""
    conditions = away("incoming")
    assert waiting_for(item(Stage.QUEUED), conditions) == "its turn"
    assert [each["service"] for each in paused(conditions)] == ["fetcher_writer"]
    conditions["incoming"]["alarm"] = "configuration"
    assert waiting_for(item(Stage.QUEUED), conditions) == "incoming: no incoming"
    assert [each["service"] for each in paused(conditions)] == ["fetcher_writer", "ticketer"]


def test_a_direct_download_needs_the_torrent_client_as_well() -> None:
    """Torrentino alone tells of a ticket, its torrent client of a torrent."""
    assert "torrent_client" in needed(Stage.DOWNLOADING, mode="direct")
    assert "torrent_client" not in needed(Stage.DOWNLOADING, mode="tickets")


@pytest.mark.parametrize("name", [name for name in DEPENDENCIES if name != "look_ups"])
def test_what_stops_an_item_is_shown_as_paused(name: Dependency) -> None:
    """The statistics list what stands still, with what to do, for each dependency."""
    found = paused(away(name))
    assert {entry["dependency"] for entry in found} == {name}
    assert all(entry["to_do"] for entry in found)
    workers = {entry["service"] for entry in found}
    for stage, names in STOPPED_BY.items():
        if name in names:
            assert workers & {"ticketer", "poller", "fetcher_writer"}, stage


@pytest.mark.parametrize("mode", ["tickets", "direct"])
@pytest.mark.parametrize("stage", Stage)
def test_every_stage_says_what_is_next(stage: Stage, mode: str) -> None:
    """With all dependencies there: words for each stage but the last two."""
    shown = waiting_for(item(stage, way=mode), away())
    assert (shown is None) is (stage in TERMINAL)


@pytest.mark.parametrize("stage", sorted(set(Stage) - TERMINAL))
def test_every_stage_has_an_end_or_waits_for_an_administrator(stage: Stage) -> None:
    """Put off, leased or at Torrentino: a time at which it moves by itself."""
    held = {Stage.TICKETING, Stage.FETCHING, Stage.VERIFYING, Stage.CONVERTING}
    row = item(stage, waits=True, lease_until=3000 if stage in held else None)
    until = waits_until(row, stall_timeout_s=500)
    assert (until is None) is (stage in ENDLESS)
    if stage in held:
        assert until == 3000
    elif stage not in ENDLESS:
        assert until == (2000 if stage in {Stage.QUEUED, Stage.RETRY_WAIT, Stage.READY} else 1500)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "its turn"),
        ({"tombstone": True}, "an earlier ticket of the track to stay cancelled at Torrentino"),
        ({"waits": True}, "the time of its next attempt"),
        ({"waits": True, "reason": "waits for its turn to search"}, "waits for its turn to search"),
    ],
)
def test_an_item_in_the_queue_says_why(more: dict[str, object], words: str) -> None:
    """Its turn, an earlier ticket, its time, or what the ticketer has put it off for."""
    assert waiting_for(item(Stage.QUEUED, **more), {}) == words
