"""DELETE items/{id}: the work goes with its last requester, the ticket with the work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.support.ingest_helpers import (
    V1,
    ask,
    ask_album,
    assert_problem,
    in_outbox,
    serve,
)
from tests.support.stages import Stages, assert_lawful, one, tickets, timeline
from tests.support.world import ADMIN, World, album_id, as_user, eventually


async def cancel(
    api: httpx.AsyncClient, item_id: str, user: str | None = None, **params: str
) -> httpx.Response:
    """DELETE an item, as a user when one is named."""
    headers = as_user(user) if user else ADMIN
    return await api.delete(f"{V1}/items/{item_id}", headers=headers, params=params)


async def queued(api: httpx.AsyncClient, track: str, *users: str | None) -> str:
    """The id of an item that these users asked for."""
    answers = [await ask(api, track, user) for user in users]
    [item_id] = {answer.json()["item"]["id"] for answer in answers}
    return str(item_id)


async def test_the_work_ends_with_the_last_requester(world: World) -> None:
    """L-39: A's withdrawal leaves the work to B, B's ends it; both may repeat it."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item_id = await queued(api, track, "A", "B")
    for _ in range(2):
        answer = await cancel(api, item_id, "A")
        assert answer.status_code == 200
        assert answer.json()["others_wait"] is True
        assert answer.json()["item"]["status"] == "PENDING"
    assert (await api.get(f"{V1}/my-requests", headers=as_user("A"))).json()["total"] == 0
    assert (await api.get(f"{V1}/limits", headers=as_user("A"))).json()["in_queue"] == 0
    for _ in range(2):
        answer = await cancel(api, item_id, "B")
        assert answer.status_code == 200
        assert answer.json()["others_wait"] is False
        item = answer.json()["item"]
        assert (item["status"], item["error_type"]) == ("FAILED", "cancelled")
    assert await timeline(world) == ["queued", "failed"]


async def test_all_requesters_leave_at_once(world: World) -> None:
    """L-38: of twenty that withdraw at the same moment, one is the last, and the item ends."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    users = [f"user-{n}" for n in range(20)]
    item_id = await queued(api, track, *users)
    answers = await asyncio.gather(*(cancel(api, item_id, user) for user in users))
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["others_wait"] for answer in answers].count(False) >= 1
    assert (await one(world))["error_type"] == "cancelled"
    assert await timeline(world) == ["queued", "failed"]


async def test_who_may_cancel_what(world: World) -> None:
    """Another user's item is not there; a file that is in place is not withdrawn; no key, no."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    item_id = await queued(api, tracks[0], "A")
    assert_problem(await cancel(api, item_id, "B"), 404, "unknown")
    assert_problem(await cancel(api, "none-such"), 404, "unknown")
    assert_problem(await cancel(api, "a%20b"), 422, "invalid-request")
    assert_problem(await cancel(api, item_id, "A", for_all="true"), 403, "not-allowed")
    assert_problem(await cancel(api, item_id, for_all="yes"), 422, "invalid-request")
    async with httpx.AsyncClient(base_url=api.base_url) as nobody:
        assert_problem(await nobody.delete(f"{V1}/items/{item_id}"), 401, "not-authenticated")
    assert (await one(world))["status"] == "PENDING"
    await world.run("ticketer", "poller", "fetcher_writer")
    await world.until_ended(1)
    answer = await cancel(api, item_id, "A")
    assert_problem(answer, 409, "conflict")
    assert "COMPLETED" in answer.json()["detail"]
    assert list(world.files()) == [tracks[0]]


async def test_an_administrator_cancels_for_everybody(world: World) -> None:
    """Who never asked, or says so, ends the item; the requesters stay and see who did it."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    first, second = [await queued(api, track, "A", "B") for track in tracks]
    assert (await cancel(api, first)).json()["others_wait"] is False
    await queued(api, tracks[1], None)
    assert (await cancel(api, second)).json()["others_wait"] is True
    assert (await cancel(api, second, for_all="true")).json()["others_wait"] is False
    page = (await api.get(f"{V1}/my-requests", headers=as_user("A"))).json()
    assert [item["error_message"] for item in page["items"]] == [
        "cancelled by an administrator"
    ] * 2


async def test_an_album_without_the_track_is_complete(world: World) -> None:
    """What a user withdrew of an album does not hold it up, and is not counted; the others'
    albums count the track that was cancelled for them."""
    tracks = world.add_album(1, 3)
    api = await serve(world)
    items = (await ask_album(api, album_id(1), "A")).json()["items"]
    await ask_album(api, album_id(1), "B")
    await cancel(api, items[0]["id"], "A")
    await cancel(api, items[1]["id"])
    await cancel(api, items[2]["id"])
    [told] = await in_outbox(world, "album.completed")
    assert (told["user_ids"], told["completed"], told["failed"]) == (["A"], 0, 2)
    await cancel(api, items[0]["id"], "B")
    _, told = await in_outbox(world, "album.completed")
    assert (told["user_ids"], told["completed"], told["failed"]) == (["B"], 0, 2)
    assert len(tracks) == 3


async def test_who_withdraws_all_tracks_of_an_album_is_told_nothing(world: World) -> None:
    """Each of its items withdrawn one by one: the request is settled, without an event."""
    world.add_album(1, 3)
    api = await serve(world)
    items = (await ask_album(api, album_id(1), "A")).json()["items"]
    await asyncio.gather(*(cancel(api, item["id"], "A") for item in items))
    assert await in_outbox(world, "album.completed") == []
    assert await world.rows("SELECT 1 FROM requests WHERE settled_at IS NULL") == []


async def test_the_ticket_is_a_tombstone_until_torrentino_agrees(
    still: World, by_hand: Stages
) -> None:
    """L-47: deleted while Torrentino downloads: the ticket stays until the cancel holds, and the
    history is kept as long, however old it is; what is delivered late is thrown away."""
    [track] = still.add_album(1, 1)
    api = await serve(still)
    item_id = await queued(api, track, "A")
    await by_hand.ticket()
    item = await one(still)
    by_hand.set_state(item, type="downloading", info_hash="a" * 40, progress_pct=5.0)
    await by_hand.poll()
    still.faults.down = True
    await cancel(api, item_id, "A")
    [ticket] = await tickets(still)
    assert ticket["state"] == "withdrawing"
    await still.execute("UPDATE queue_items SET completed_at = 1")
    await still.execute("UPDATE events SET published_at = now()")
    await by_hand.prune()
    assert len(await still.items()) == 1
    still.faults.down = False
    await by_hand.poll()
    assert still.standin.requests["DELETE /tickets/{id}"] == 1
    # Its pipeline was faster than the cancel, and overwrites it.
    folder = Path(ticket["dest_path"])
    folder.mkdir(parents=True)
    (folder / "song.converted").write_bytes(b"late")
    by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    await by_hand.poll()
    await by_hand.clean()
    assert (await tickets(still))[0]["state"] == "closed"
    assert not folder.exists()
    assert await by_hand.fetch() == 0
    assert (await one(still))["status"] == "FAILED"
    await by_hand.prune()
    assert await still.items() == []


async def test_a_followed_item_is_cancelled_with_its_ticket(still: World, by_hand: Stages) -> None:
    """Wherever its ticket is at Torrentino, the item fails as cancelled, and the ticket with it;
    every ticketing has an end in the history (L-24). test_moves.py cancels from every stage."""
    tracks = still.add_album(1, 5)
    api = await serve(still)
    items = [await queued(api, track, "A") for track in tracks]
    await by_hand.ticket()
    states: list[dict[str, Any]] = [
        {"type": "acquiring"},
        {"type": "needs_approval", "candidates": []},
        {"type": "downloading", "info_hash": "a" * 40, "progress_pct": 1.0},
        {"type": "converting"},
        {"type": "completed", "stats": {"files_placed": 1}},
    ]
    for item, state in zip(await still.items(), states, strict=True):
        by_hand.set_state(item, **state)
    await by_hand.poll()
    before = [item["stage"] for item in await still.items()]
    assert before == ["searching", "needs_approval", "downloading", "processing", "ready"]
    for item_id in items:
        assert (await cancel(api, item_id, "A")).status_code == 200
    assert {item["error_type"] for item in await still.items()} == {"cancelled"}
    found = {ticket["state"] for ticket in await tickets(still)}
    assert found == {"withdrawing", "closed"}

    async def all_closed() -> set[str]:
        await by_hand.poll()
        return {ticket["state"] for ticket in await tickets(still)}

    await eventually(all_closed, lambda found: found == {"closed"})
    assert still.live_tickets() == []
    await assert_lawful(still)
