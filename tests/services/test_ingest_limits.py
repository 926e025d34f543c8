"""Limits of a user: exact under concurrency, and counted from rows."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx

from shared.bus.subjects import REQUEST_CANCEL
from tests.support.audio import make_audio
from tests.support.ingest_helpers import (
    V1,
    ask,
    ask_album,
    assert_problem,
    in_outbox,
    put_file,
    send,
    serve,
)
from tests.support.world import World, album_id, as_user, eventually


async def limits(api: httpx.AsyncClient, user: str | None = None) -> dict[str, Any]:
    """What GET limits says."""
    headers = as_user(user) if user else None
    answer = await api.get(f"{V1}/limits", headers=headers)
    body: dict[str, Any] = answer.json()
    return body


async def test_one_left_of_the_day_is_given_out_once(world: World) -> None:
    """L-38: twenty requests at once with one left of the day: exactly one is accepted."""
    tracks = world.add_album(1, 21)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="2")
    await ask(api, tracks[0], "42")
    assert (await limits(api, "42"))["can_request"] is True
    answers = await asyncio.gather(*(ask(api, track, "42") for track in tracks[1:]))
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len(accepted) == 1
    for answer in answers:
        if answer is not accepted[0]:
            assert_problem(answer, 409, "limit-reached")
    assert len(await world.items()) == 2
    assert await limits(api, "42") == {
        "requests_today": 2,
        "max_per_day": 2,
        "in_queue": 2,
        "max_queue": 200,
        "can_request": False,
        "unlimited": False,
    }
    assert (await ask(api, tracks[1], "7")).status_code == 202


async def test_one_left_of_the_queue_is_given_out_once(world: World) -> None:
    """L-38: the same for the items that a user may have in the queue."""
    tracks = world.add_album(1, 20)
    api = await serve(world, USER_MAX_QUEUE_SIZE="1")
    answers = await asyncio.gather(*(ask(api, track, "42") for track in tracks))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 19]
    assert len(await world.items()) == 1
    assert len(await world.rows("SELECT 1 FROM requests")) == 1


async def test_an_album_is_one_request_and_all_or_nothing(world: World) -> None:
    """An album counts once for the day, each of its tracks in the queue; over it, none of it."""
    world.add_album(1, 5)
    world.add_album(2, 6)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="2", USER_MAX_QUEUE_SIZE="10")
    assert (await ask_album(api, album_id(1), "42")).json()["queued"] == 5
    refused = await ask_album(api, album_id(2), "42")
    assert_problem(refused, 409, "limit-reached")
    assert "11" in refused.json()["detail"]
    usage = await limits(api, "42")
    assert (usage["requests_today"], usage["in_queue"], usage["can_request"]) == (1, 5, True)
    assert len(await world.items()) == 5


async def test_what_asks_for_nothing_new_is_not_charged(world: World) -> None:
    """A repetition by the same user, and a file that is known, use up nothing; joining does."""
    tracks = world.add_album(1, 3)
    put_file(world, tracks[2], make_audio(world.folder / "song.flac", seconds=8))
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="1")
    assert (await ask(api, tracks[2])).status_code == 200
    assert (await ask(api, tracks[0], "42")).status_code == 202
    for _ in range(3):
        again = await ask(api, tracks[0], "42")
        assert (again.status_code, again.json()["deduplicated"]) == (202, True)
    assert (await ask(api, tracks[2], "42")).status_code == 200
    assert (await limits(api, "42"))["requests_today"] == 1
    await ask(api, tracks[1], "7")
    assert_problem(await ask(api, tracks[0], "7"), 409, "limit-reached")
    assert (await limits(api, "7"))["in_queue"] == 1


async def test_limits_hold_for_both_doors(world: World) -> None:
    """A user is told over NATS too, and the catalog server's own requests have no limits."""
    tracks = world.add_album(1, 4)
    await serve(world, USER_MAX_REQUESTS_PER_DAY="1", USER_MAX_QUEUE_SIZE="1")
    await send(world, tracks[0], "42")
    await eventually(world.items)
    refused = await send(world, tracks[1], "42")
    [told] = await eventually(lambda: in_outbox(world, "request.rejected"))
    assert (told["request_id"], told["problem"]) == (refused, "LimitReached")
    for track in tracks[1:]:
        await send(world, track)
    await eventually(world.items, lambda items: len(items) == 4)


async def test_an_administrator_has_no_limits(world: World) -> None:
    """L-51: no limit is null, with the real counts beside it."""
    tracks = world.add_album(1, 3)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="0", USER_MAX_QUEUE_SIZE="0")
    assert_problem(await ask(api, tracks[0], "42"), 409, "limit-reached")
    for track in tracks:
        assert (await ask(api, track)).status_code == 202
    assert await limits(api) == {
        "requests_today": 3,
        "max_per_day": None,
        "in_queue": 3,
        "max_queue": None,
        "can_request": True,
        "unlimited": True,
    }


async def test_a_day_begins_at_midnight_utc(world: World) -> None:
    """What was asked before midnight UTC is not today's, wherever the server's clock stands."""
    tracks = world.add_album(1, 2)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="1")
    await ask(api, tracks[0], "42")
    midnight = "date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
    await world.execute(f"UPDATE requests SET created_at = {midnight}")
    assert (await limits(api, "42"))["requests_today"] == 1
    await world.execute(f"UPDATE requests SET created_at = {midnight} - interval '1 us'")
    assert (await limits(api, "42"))["requests_today"] == 0
    assert (await ask(api, tracks[1], "42")).status_code == 202


async def test_in_queue_is_what_is_in_the_queue(world: World) -> None:
    """L-01: completed, failed and withdrawn items leave the queue's count, by whichever way."""
    tracks = world.add_album(1, 3)
    world.songs[:] = [song for song in world.songs if song.title != "Song 1002"]
    api = await serve(world, MAX_RETRIES="0")
    withdrawn = str(uuid.uuid4())
    await ask(api, tracks[0], "42")
    await ask(api, tracks[1], "42")
    await send(world, tracks[2], "42", request_id=withdrawn)
    await eventually(lambda: limits(api, "42"), lambda usage: usage["in_queue"] == 3)
    await world.publish(REQUEST_CANCEL, f'{{"v":1,"request_id":"{withdrawn}"}}'.encode())
    await eventually(lambda: limits(api, "42"), lambda usage: usage["in_queue"] == 2)
    await world.run("ticketer", "poller", "fetcher_writer", MAX_RETRIES="0")
    items = await world.until_ended(3)
    assert [item["error_type"] for item in items] == [None, "not_found", "cancelled"]
    assert (await limits(api, "42"))["in_queue"] == 0
