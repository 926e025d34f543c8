"""One track, many requesters: the work is done once, and every requester is served."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import httpx

from shared.bus.subjects import REQUEST_ALBUM, REQUEST_CANCEL, REQUEST_TRACK
from tests.support.audio import make_audio
from tests.support.ingest_helpers import (
    V1,
    ask,
    ask_album,
    in_outbox,
    message,
    put_file,
    send,
    serve,
    unhandled,
)
from tests.support.world import World, album_id, as_user, eventually


async def test_five_requests_over_both_ways_are_one_of_everything(world: World) -> None:
    """L-39: two users over HTTP and three over NATS at once: one item, ticket and file, and
    audio.ready names all five of them."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    sent = [send(world, track, user) for user in ("C", "D", "E")]
    answers, ids = await asyncio.gather(
        asyncio.gather(*(ask(api, track, user) for user in ("A", "B"))), asyncio.gather(*sent)
    )
    assert {answer.status_code for answer in answers} == {202}
    await eventually(lambda: world.rows("SELECT 1 FROM item_requesters"), lambda r: len(r) == 5)
    await world.run("ticketer", "poller", "fetcher_writer")
    [item] = await world.until_ended(1)
    assert item["status"] == "COMPLETED"
    assert len(world.standin.tickets()) == 1
    assert list(world.files()) == [track]
    [ready] = await eventually(lambda: world.events("audio.ready.*"))
    assert sorted(ready["body"]["user_ids"]) == ["A", "B", "C", "D", "E"]
    assert len(ready["body"]["request_ids"]) == 5
    assert set(ids) < set(ready["body"]["request_ids"])


async def test_fifty_parallel_requests_make_one_item(world: World) -> None:
    """L-38: the database, not a check before the insert, keeps a track single; L-20: more requests
    than connections all come through."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    answers = await asyncio.gather(*(ask(api, track, f"user-{n}") for n in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert sum(not answer.json()["deduplicated"] for answer in answers) == 1
    [item] = await world.items()
    assert {answer.json()["item"]["id"] for answer in answers} == {item["id"]}
    assert len(await world.rows("SELECT 1 FROM item_requesters")) == 50


async def test_parallel_albums_that_share_tracks_are_not_in_each_others_way(world: World) -> None:
    """The same album for many users, and single tracks of it in between: each track once."""
    tracks = world.add_album(1, 12)
    api = await serve(world)
    answers = await asyncio.gather(
        *(ask_album(api, album_id(1), f"user-{n}") for n in range(10)),
        *(ask(api, track, f"single-{track}") for track in reversed(tracks)),
    )
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(item["track_id"] for item in await world.items()) == sorted(tracks)
    assert len(await world.rows("SELECT 1 FROM item_requesters")) == 10 * 12 + 12


async def test_the_same_message_again_has_no_second_effect(world: World) -> None:
    """A request id is carried out once: delivered again, and published again without the id that
    JetStream would know it by."""
    tracks = world.add_album(1, 3)
    await serve(world)
    body = {"v": 1, "request_id": "the-same", "user_id": "42", "album_id": album_id(1)}
    await world.publish(REQUEST_ALBUM, body)
    await eventually(world.items, lambda items: len(items) == 3)
    for _ in range(3):
        # As bytes, `publish` sets no Nats-Msg-Id.
        await world.publish(REQUEST_ALBUM, str(body).replace("'", '"').encode())
    await world.publish(REQUEST_TRACK, message(tracks[0], "7"))
    await eventually(lambda: in_outbox(world, "request.accepted"), lambda told: len(told) == 2)
    assert await eventually(lambda: unhandled(world), lambda left: left == 0) == 0
    assert len(await world.items()) == 3
    assert len(await world.rows("SELECT 1 FROM requests")) == 2
    assert len(await world.rows("SELECT 1 FROM item_requesters")) == 4


async def test_a_file_that_is_placed_while_the_request_is_decided_is_not_fetched_again(
    world: World,
) -> None:
    """A request that waits to join an item finds it completed: 200, and no second item."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    await ask(api, track, "A")
    file = make_audio(world.folder / "song.flac", seconds=8)
    connection = await asyncpg.connect(world.database_url)
    try:
        worker = connection.transaction()
        await worker.start()
        # What the fetcher-writer does at the end, while all others wait for the row.
        await connection.execute(
            "UPDATE queue_items SET stage = 'completed', status = 'COMPLETED', completed_at = 1"
        )
        asking = asyncio.create_task(ask(api, track, "B"))
        await eventually(
            lambda: world.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        )
        placed = put_file(world, track, file)
        await connection.execute(
            "INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms,"
            " codec, bitrate_kbps) VALUES ($1, $2, 'flac', $3, '', 8000, 'flac', 1)",
            track,
            str(placed.relative_to(world.media)),
            placed.stat().st_size,
        )
        await worker.commit()
    finally:
        await connection.close()
    answer = await asking
    assert answer.status_code == 200, answer.text
    assert answer.json()["available"] is True
    assert len(await world.items()) == 1


async def test_a_withdrawal_that_overtakes_its_request_still_holds(world: World) -> None:
    """Messages of one batch are handled side by side: cancelled first, asked later is nothing."""
    [track] = world.add_album(1, 1)
    await serve(world)
    request_id = str(uuid.uuid4())
    cancel = {"v": 1, "request_id": request_id, "user_id": "42"}
    await world.publish(REQUEST_CANCEL, str(cancel).replace("'", '"').encode())
    await eventually(lambda: world.rows("SELECT 1 FROM requests"))
    await send(world, track, "42", request_id=request_id)
    await send(world, track, "7")
    await eventually(world.items)
    assert await eventually(lambda: unhandled(world), lambda left: left == 0) == 0
    assert [r["user_id"] for r in await world.rows("SELECT user_id FROM item_requesters")] == ["7"]


async def test_the_work_goes_on_until_the_last_requester_withdraws(world: World) -> None:
    """L-39: A's withdrawal leaves the work to B; B's ends it, and no album event follows."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    ids = {}
    for user in ("A", "B"):
        ids[user] = str(uuid.uuid4())
        body = {"v": 1, "request_id": ids[user], "user_id": user, "album_id": album_id(1)}
        await world.publish(REQUEST_ALBUM, body)
    await eventually(lambda: world.rows("SELECT 1 FROM item_requesters"), lambda r: len(r) == 4)
    stranger = {"v": 1, "request_id": ids["B"], "user_id": "C"}
    await world.publish(REQUEST_CANCEL, str(stranger).replace("'", '"').encode())

    async def withdraw() -> httpx.Response:
        # With the `Nats-Msg-Id` of the request that it withdraws, as the contract has it.
        await world.publish(REQUEST_CANCEL, {"v": 1, "request_id": ids["A"], "user_id": "A"})
        return await api.get(f"{V1}/my-requests", headers=as_user("A"))

    mine = await eventually(withdraw, lambda answer: answer.json()["total"] == 0, within_s=5)
    assert mine.json()["items"] == []
    assert {item["status"] for item in await world.items()} == {"PENDING"}
    # The catalog server may leave the user out: it withdraws what it sent.
    await world.publish(REQUEST_CANCEL, f'{{"v":1,"request_id":"{ids["B"]}"}}'.encode())
    items = await world.until_ended(len(tracks))
    assert {item["error_type"] for item in items} == {"cancelled"}
    assert await in_outbox(world, "album.completed") == []
