"""Whose turn it is: users of one priority are served by turns, and some places stay free."""

from __future__ import annotations

import pytest

from services.ticketer.places import kept_for_users
from tests.services.test_ingest_cancel import queued
from tests.support.ingest_helpers import V1, ask, serve
from tests.support.stages import Stages, queue, stages
from tests.support.world import World, album_id, as_user, track_id


def tracks(first: int, count: int) -> list[str]:
    return [track_id(n) for n in range(first, first + count)]


async def under_way(world: World) -> list[str]:
    """The users with an item that a ticket is made for, in the order of its intent."""
    rows = await world.rows(
        "SELECT q.requested_by_user_id AS user"
        "  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id"
        " WHERE q.stage = 'searching' ORDER BY t.intended_at, q.turn, q.seq"
    )
    return [row["user"] for row in rows]


async def turns(world: World) -> list[tuple[str, int]]:
    rows = await world.rows("SELECT turn_of, turn FROM queue_items ORDER BY seq")
    return [(row["turn_of"], row["turn"]) for row in rows]


async def test_a_user_is_not_behind_all_of_another(still: World) -> None:
    """A asks for twenty tracks one by one, then B for one: B is next but one at the latest, also
    while A's are under way, and so says the queue."""
    for track in tracks(1, 20):
        await queue(still, [track], user_id="A")
    async with stages(still, MAX_TICKETS_IN_FLIGHT="2") as by_hand:
        await by_hand.ticket()
        assert await under_way(still) == ["A", "A"]
        await queue(still, [track_id(100)], user_id="B")
        for item in await still.items():
            if item["stage"] == "searching":
                by_hand.set_state(item, type="rejected", rejected_by="a test", reason=None)
        await by_hand.poll()
        api = await serve(still)
        answer = await api.get(f"{V1}/my-requests", headers=as_user("B"))
        assert answer.json()["items"][0]["queue_position"] <= 2
        await by_hand.ticket()
    assert "B" in await under_way(still)


async def test_what_fails_waits_behind_others(still: World, by_hand: Stages) -> None:
    """Ten of A's items that failed once and are due again do not all come before B's new one."""
    for track in tracks(1, 10):
        await queue(still, [track], user_id="A")
    await by_hand.ticket()
    await queue(still, [track_id(100)], user_id="B")
    for item in await still.items():
        if item["stage"] == "searching":
            by_hand.set_state(item, type="acquisition_failed", reason="No candidates found")
    await by_hand.poll()
    await still.execute("UPDATE queue_items SET due_at = now()")
    await still.execute("UPDATE tickets SET state = 'closed'")
    [first] = await by_hand.starter.store.claim(1, takes_new=True)
    [second] = await by_hand.starter.store.claim(1, takes_new=True)
    assert track_id(100) in {first.items[0].track.id, second.items[0].track.id}


async def test_an_album_is_one_turn_until_it_is_asked_for_by_track(still: World) -> None:
    """Also what is added to it later; each of its tracks has a turn when each has a ticket."""
    await queue(still, tracks(1001, 3), album=1, user_id="A")
    await queue(still, tracks(2001, 2), album=2, user_id="A")
    await queue(still, tracks(1004, 1), album=1, user_id="A")
    assert [turn for _, turn in await turns(still)] == [0, 0, 0, 1, 1, 0]
    async with stages(still, TICKET_GROUPING="auto", MAX_TICKETS_IN_FLIGHT="1") as by_hand:
        assert await by_hand.ticket() == 4
        [remote] = still.standin.tickets()
        state = {"type": "acquisition_failed", "reason": "No candidates found"}
        still.standin.set_state(str(remote["id"]), state)
        await by_hand.poll()
    of_one = await still.rows(
        "SELECT turn FROM queue_items WHERE album_id = $1 ORDER BY turn", album_id(1)
    )
    assert [row["turn"] for row in of_one] == [2, 3, 4, 5]


async def test_tracks_with_their_own_tickets_have_their_own_turns(world: World) -> None:
    """TICKET_GROUPING=track: an album of five is five tickets, and so five turns."""
    wanted = world.add_album(1, 5)
    api = await serve(world)
    await api.post(f"{V1}/album/{album_id(1)}", headers=as_user("A"))
    assert await turns(world) == [("A", n) for n in range(len(wanted))]


async def test_who_joins_gets_its_own_turn(still: World) -> None:
    """B asks for A's last, and for one of a scan: both come at B's turn."""
    for track in tracks(1, 5):
        await queue(still, [track], user_id="A")
    await queue(still, tracks(50, 3), user_id=None, priority=3)
    await queue(still, [track_id(5)], user_id="B")
    await queue(still, [track_id(52)], user_id="B")
    rows = await still.rows(
        "SELECT track_id, priority, turn_of, turn FROM queue_items WHERE turn_of = 'B' ORDER BY seq"
    )
    assert [(row["track_id"], row["priority"], row["turn"]) for row in rows] == [
        (track_id(5), 2, 0),
        (track_id(52), 2, 1),
    ]


async def test_a_new_user_is_never_before_what_waits_long(still: World) -> None:
    """Turns that were served do not come again: the old is overtaken by one turn of each user."""
    for track in tracks(1, 6):
        await queue(still, [track], user_id="A")
    async with stages(still, MAX_TICKETS_IN_FLIGHT="4") as by_hand:
        await by_hand.ticket()
    await queue(still, [track_id(100)], user_id="B")
    await queue(still, [track_id(101)], user_id="B")
    waiting = await still.rows(
        "SELECT turn_of FROM queue_items WHERE stage = 'queued' ORDER BY priority, turn, seq"
    )
    assert [row["turn_of"] for row in waiting] == ["B", "A", "B", "A"]


async def test_a_scan_leaves_places_to_users(still: World) -> None:
    """Of four places two; a user's item finds one at once."""
    await queue(still, tracks(1, 10), user_id=None, priority=3)
    async with stages(still, MAX_TICKETS_IN_FLIGHT="4") as by_hand:
        assert await by_hand.ticket() == 2
        assert await by_hand.ticket() == 0
        await queue(still, tracks(100, 1), user_id="B")
        assert await by_hand.ticket() == 1
    assert await under_way(still) == [None, None, "B"]


async def test_no_user_takes_the_last_place_while_another_waits(still: World) -> None:
    """Also where all of A's are more urgent; alone, A has all places."""
    await queue(still, tracks(1, 10), user_id="A", priority=1)
    await queue(still, tracks(100, 1), user_id="B", priority=2)
    async with stages(still, MAX_TICKETS_IN_FLIGHT="3") as by_hand:
        assert await by_hand.ticket() == 3
        assert sorted(await under_way(still)) == ["A", "A", "B"]
    await still.execute("UPDATE tickets SET state = 'closed'")
    async with stages(still, MAX_TICKETS_IN_FLIGHT="3") as by_hand:
        assert await by_hand.ticket() == 3


@pytest.mark.parametrize(
    ("most", "kept"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 4), (20, 4), (50, 10)]
)
def test_the_share_of_users(most: int, kept: int) -> None:
    """A fifth, at least four, at most half; a single place is no one's."""
    assert kept_for_users(most) == kept


async def test_a_retry_takes_a_new_turn(world: World) -> None:
    """Cancel and retry brings nothing forward."""
    wanted = world.add_album(1, 3)
    api = await serve(world)
    first = await queued(api, wanted[0], "A")
    for track in wanted[1:]:
        await ask(api, track, "A")
    await api.delete(f"{V1}/items/{first}", headers=as_user("A"))
    await api.post(f"{V1}/items/{first}/retry", headers=as_user("A"))
    assert await turns(world) == [("A", 3), ("A", 1), ("A", 2)]
