"""What a search that found nothing costs, and what a person should know of an approval."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.services.test_poller import HASH
from tests.support.stages import Stages, assert_lawful, one, queue, stages, tickets
from tests.support.world import Row, World

NOTHING = {"type": "acquisition_failed", "reason": "No suitable candidates found"}
WAY = {"ACQUISITION": "tickets", "TICKET_GROUPING": "auto"}
# What each kind of ticket sends to every indexer, at most: live §2.6.
QUERIES = {"album": 6, "track": 9}


@pytest.fixture
async def by_hand(still: World) -> AsyncIterator[Stages]:
    """Workers that ask for albums, and wait as by default."""
    async with stages(still, RETRY_INITIAL_S="60", RETRY_MULTIPLIER="2.5", **WAY) as made:
        yield made


async def find_nothing(still: World, by_hand: Stages, most: int = 99) -> None:
    """So many of the tickets that search end so, one after the other, and are let go."""
    searching = [t for t in still.standin.tickets() if t["state"]["type"] == "pending"]  # type: ignore[index]
    for ticket in searching[:most]:
        still.standin.set_state(str(ticket["id"]), NOTHING)
        await by_hand.poll()
    await still.execute(
        "UPDATE tickets SET state = 'closed', closed_at = now() WHERE state = 'withdrawing'"
    )


async def pass_until_due(still: World) -> None:
    """Let just so much time pass that the first of all items is due."""
    await still.execute(
        "UPDATE queue_items q SET due_at = q.due_at - (w.first - now())"
        "  FROM (SELECT min(due_at) AS first FROM queue_items WHERE completed_at IS NULL) w"
        " WHERE q.completed_at IS NULL AND w.first > now()"
    )


@pytest.mark.parametrize("at_once", [2, 99])
async def test_an_album_that_nobody_has_is_not_asked_for_by_each_track(
    still: World, by_hand: Stages, at_once: int
) -> None:
    """Twelve tracks until they are given up: each asks for itself once, and the album's ticket is
    asked for by all of them together, also where a minute is enough for two searches only."""
    await queue(still, still.add_album(1, 12), album=1)
    while any(item["completed_at"] is None for item in await still.items()):
        await pass_until_due(still)
        while await by_hand.ticket_once():
            pass
        await find_nothing(still, by_hand, at_once)
    asked = Counter(row["kind"] for row in await tickets(still))
    assert asked == {"album": 4, "track": 12}
    assert sum(QUERIES[kind] * count for kind, count in asked.items()) == 132
    items = await still.items()
    assert {(i["status"], i["error_type"], i["retry_count"]) for i in items} == {
        ("FAILED", "not_found", 3)
    }
    await assert_lawful(still)


async def test_a_single_track_takes_turns(still: World, by_hand: Stages) -> None:
    """Alone it may ask for either at the same cost: itself, its album, and again; four searches,
    each an attempt."""
    await queue(still, still.add_album(1, 1), album=1)
    while (await one(still))["completed_at"] is None:
        await pass_until_due(still)
        await by_hand.ticket()
        await find_nothing(still, by_hand)
    rows = await still.rows("SELECT kind FROM tickets ORDER BY intended_at")
    assert [row["kind"] for row in rows] == ["track", "album", "track", "album"]


async def test_who_was_not_asked_for_alone_before_is_now(still: World, by_hand: Stages) -> None:
    """A track that joins the ticket of the others has its own turn when that finds nothing."""
    tracks = still.add_album(1, 3)
    await queue(still, tracks[:2], album=1)
    for _ in range(2):
        await by_hand.ticket()
        await find_nothing(still, by_hand)
    await queue(still, tracks[2:], album=1)
    await by_hand.ticket()
    await find_nothing(still, by_hand)
    found = [(i["stage"], i["ask_next"], i["retry_count"]) for i in await still.items()]
    assert found == [
        ("retry_wait", "album", 2),
        ("retry_wait", "album", 2),
        ("queued", "track", 0),
    ]
    await assert_lawful(still)


async def test_those_that_wait_for_the_album_wait_together(still: World, by_hand: Stages) -> None:
    """Until the one who waits longest; those of other albums, and other failures, do not."""
    await queue(still, still.add_album(1, 3), album=1)
    await queue(still, still.add_album(2, 2), album=2)
    for _ in range(2):
        await by_hand.ticket()
        await find_nothing(still, by_hand)
    due: dict[str, set[object]] = {}
    for item in await still.items():
        due.setdefault(item["album_id"], set()).add(item["due_at"])
        waited = (item["due_at"] - item["updated_at"]).total_seconds()
        assert 40 < waited < 70
    assert [len(times) for times in due.values()] == [1, 1]
    assert len(set.union(*due.values())) == 2


async def test_where_only_albums_are_asked_for_they_come_back_together(still: World) -> None:
    """TICKET_GROUPING=album: one ticket a round, and not one a track."""
    settings = WAY | {"TICKET_GROUPING": "album", "RETRY_INITIAL_S": "60"}
    async with stages(still, **settings) as by_hand:
        await queue(still, still.add_album(1, 5), album=1)
        while any(item["completed_at"] is None for item in await still.items()):
            await pass_until_due(still)
            await by_hand.ticket_once()
            await find_nothing(still, by_hand)
    assert [row["kind"] for row in await tickets(still)] == ["album"] * 4


def downloading(pct: float, magnet: str | None, **more: str) -> dict[str, object]:
    chosen = {"title": "A torrent", "info_hash": HASH, "size_bytes": 5, **more}
    if magnet is not None:
        chosen["magnet_uri"] = magnet
    state = {"type": "downloading", "info_hash": HASH, "progress_pct": pct}
    return state | {"candidate_idx": 0, "candidates": [chosen]}


BARE = f"magnet:?xt=urn:btih:{HASH}&dn=A%20torrent"


async def seen(still: World, by_hand: Stages, state: dict[str, object], idle_s: int) -> Row:
    """The item when its ticket is in this state, and has shown nothing new for so long."""
    item = await one(still)
    by_hand.set_state(item, **state)
    await by_hand.poll()
    await still.execute(
        "UPDATE tickets SET progressed_at = now() - make_interval(secs => $1)", float(idle_s)
    )
    await by_hand.poll()
    return await one(still)


async def test_an_approval_without_trackers_is_told(still: World, by_hand: Stages) -> None:
    """Live §2.3: the item says why nothing comes, as long as that is so, and so does its end."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    assert (await seen(still, by_hand, downloading(0.0, BARE), 30))["reason"] == (
        "Torrentino: downloading"
    )
    item = await seen(still, by_hand, downloading(0.0, BARE), 150)
    assert (item["stage"], "has no trackers" in item["reason"]) == ("downloading", True)
    assert "ACQUISITION=direct" in item["reason"]
    item = await seen(still, by_hand, downloading(0.1, BARE), 150)
    assert item["reason"] == "Torrentino: downloading", "there is a peer after all"


@pytest.mark.parametrize(
    "state",
    [
        downloading(0.0, BARE + "&tr=http%3A%2F%2Ftracker"),
        downloading(0.0, BARE + "&tr.1=udp%3A%2F%2Ftracker"),
        downloading(0.0, BARE, torrent_url="http://indexer/1.torrent"),
        downloading(0.0, None),
        downloading(0.0, BARE) | {"candidates": []},
        downloading(0.0, BARE) | {"candidate_idx": None},
        {"type": "auto_approved"},
    ],
)
async def test_what_has_a_tracker_or_may_have_one_is_no_such_case(
    still: World, by_hand: Stages, state: dict[str, object]
) -> None:
    """Nothing is said that is not known."""
    await queue(still, still.add_album(1, 1))
    await by_hand.ticket()
    assert "trackers" not in (await seen(still, by_hand, state, 150))["reason"]
