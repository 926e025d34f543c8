"""What repeated wishes, retries and files in place cost, and who undoes an administrator's end."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path

from starlette.responses import PlainTextResponse

from services.ingest.concurrency_limit import ConcurrencyLimit, without_place
from services.ingest.verdicts import Verdicts
from shared.bus.subjects import REQUEST_ALBUM, REQUEST_TRACK
from shared.db.pool import Database
from shared.media.tools import AudioTools, find_tools
from shared.media.verify import AudioFacts, verify
from tests.services.test_ingest_cancel import cancel, queued
from tests.services.test_ingest_limits import limits
from tests.services.test_ingest_retry import retry
from tests.support.audio import make_audio
from tests.support.ingest_helpers import (
    ask,
    ask_album,
    assert_problem,
    in_outbox,
    message,
    put_file,
    serve,
    unhandled,
)
from tests.support.world import World, album_id, eventually

# --- retries


async def test_a_retry_is_a_request_of_the_day(world: World) -> None:
    """Cancelled and retried again and again, an item is as many requests; an administrator's retry
    is none of the user's."""
    [track] = world.add_album(1, 1)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="3")
    item_id = await queued(api, track, "A")
    for _ in range(2):
        await cancel(api, item_id, "A")
        assert (await retry(api, item_id, "A")).status_code == 202
    await cancel(api, item_id, "A")
    assert_problem(await retry(api, item_id, "A"), 409, "limit-reached")
    assert (await limits(api, "A"))["requests_today"] == 3
    assert (await retry(api, item_id)).status_code == 202
    assert (await limits(api, "A"))["requests_today"] == 3


async def test_what_failed_by_our_fault_is_retried_for_nothing(world: World) -> None:
    """A disk, an outage or a bug ended it: the user has asked for it once, and still has."""
    [track] = world.add_album(1, 1)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="1")
    item_id = await queued(api, track, "A")
    for error_type, status in (("storage", 202), ("not_found", 409)):
        await world.execute(
            "UPDATE queue_items SET stage = 'failed', completed_at = 1, error_type = $1", error_type
        )
        assert (await retry(api, item_id, "A")).status_code == status
    assert (await limits(api, "A"))["requests_today"] == 1


async def test_an_administrators_end_is_not_undone_by_a_user(world: World) -> None:
    """The retry is refused with who may; a new request is one more; an administrator may retry."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    first, second = [await queued(api, track, "A") for track in tracks]
    await cancel(api, first)
    await cancel(api, second)
    refused = await retry(api, first, "A")
    assert_problem(refused, 403, "not-allowed")
    assert "administrator" in refused.json()["detail"]
    again = await ask(api, tracks[0], "A")
    assert (again.status_code, again.json()["deduplicated"]) == (202, False)
    assert (await limits(api, "A"))["requests_today"] == 3
    assert (await retry(api, second)).status_code == 202
    await cancel(api, second, "A")
    assert (await retry(api, second, "A")).status_code == 202


# --- repeated wishes


async def test_a_repeated_wish_is_one_row(world: World) -> None:
    """Fifty times the same track, an album and a file that is there: a row and an event for each
    wish; each answer is the same."""
    tracks = world.add_album(1, 3)
    [there] = world.add_album(2, 1)
    put_file(world, there, make_audio(world.folder / "song.flac", seconds=8))
    api = await serve(world)
    answers = await asyncio.gather(*(ask(api, tracks[0], "A") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["item"]["id"] for answer in answers}) == 1
    albums = [(await ask_album(api, album_id(1), "A")).json() for _ in range(3)]
    assert len({each["request_id"] for each in albums}) == 1
    assert [(each["queued"], each["already_queued"]) for each in albums] == [(2, 1), (0, 3), (0, 3)]
    assert {(await ask(api, there, "A")).status_code for _ in range(3)} == {200}
    assert len(await world.rows("SELECT 1 FROM requests")) == 3
    assert len(await in_outbox(world, "request.accepted")) == 3
    # Another user's is another wish, and so is one for what has ended.
    await ask(api, tracks[0], "B")
    await cancel(api, albums[0]["items"][0]["id"])
    assert (await ask(api, albums[0]["items"][0]["track_id"], "A")).json()["deduplicated"] is False
    assert len(await world.rows("SELECT 1 FROM requests")) == 5


async def test_each_request_id_of_a_repeated_wish_is_answered_once(world: World) -> None:
    """Over NATS it may be withdrawn by its id; delivered twice, also with the limit used up
    meanwhile, it has one answer."""
    [track] = world.add_album(1, 1)
    await serve(world, USER_MAX_REQUESTS_PER_DAY="1")
    first, second = message(track, "A"), message(track, "A")
    for body in (first, second, first, second):
        # As bytes: JetStream does not know them by an id.
        await world.publish(REQUEST_TRACK, str(body).replace("'", '"').encode())
    told = await eventually(lambda: in_outbox(world, "request.accepted"), lambda t: len(t) == 2)
    assert {each["request_id"] for each in told} == {first["request_id"], second["request_id"]}
    assert await eventually(lambda: unhandled(world), lambda left: left == 0) == 0
    assert len(await in_outbox(world, "request.accepted")) == 2
    assert await in_outbox(world, "request.rejected") == []


# --- albums larger than the queue


async def test_an_album_of_any_size_is_taken_into_an_empty_queue(world: World) -> None:
    """Over both doors; beside other items it is refused, with what is possible."""
    world.add_album(1, 5)
    world.add_album(2, 5)
    [single] = world.add_album(3, 1)
    api = await serve(world, USER_MAX_QUEUE_SIZE="3")
    whole = await ask_album(api, album_id(1), "A")
    assert (whole.status_code, whole.json()["queued"]) == (202, 5)
    refused = await ask_album(api, album_id(2), "A")
    assert_problem(refused, 409, "limit-reached")
    assert "while nothing else is in your queue" in refused.json()["detail"]
    assert_problem(await ask(api, single, "A"), 409, "limit-reached")
    body = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "B", "album_id": album_id(2)}
    await world.publish(REQUEST_ALBUM, body)
    await eventually(world.items, lambda items: len(items) == 10)
    assert (await limits(api, "B"))["in_queue"] == 5


# --- files in place


def off(world: World, tracks: list[str]) -> list[Path]:
    """Files in place that are 4 s too short."""
    song = make_audio(world.folder / "short.flac", seconds=4)
    return [put_file(world, track, song) for track in tracks]


async def verdicts(world: World) -> list[str]:
    rows = await world.rows("SELECT checked_at FROM file_verdicts ORDER BY path_key")
    return [str(row["checked_at"]) for row in rows]


async def test_limits_are_checked_before_files_are_decoded(world: World) -> None:
    """With no request left, or no room, nothing is decoded for a user; nor for a retry."""
    tracks = world.add_album(1, 3, seconds=15)
    api = await serve(world, USER_MAX_REQUESTS_PER_DAY="1", USER_MAX_QUEUE_SIZE="1")
    item_id = await queued(api, tracks[0], "A")
    await cancel(api, item_id, "A")
    off(world, tracks)
    answers = await asyncio.gather(*(ask_album(api, album_id(1), "A") for _ in range(12)))
    for answer in [*answers, await retry(api, item_id, "A"), await ask(api, tracks[1], "A")]:
        assert_problem(answer, 409, "limit-reached")
    assert await verdicts(world) == []


async def test_a_file_is_decoded_again_only_when_it_has_changed(world: World) -> None:
    """Also after a restart: the verdict is kept by path, size and time."""
    [track] = world.add_album(1, 1, seconds=15)
    [path] = off(world, [track])
    api = await serve(world)
    assert (await ask(api, track)).status_code == 202
    [seen] = await verdicts(world)
    assert (await ask(api, track, "A")).status_code == 202
    await world.running[0].end()
    world.running.clear()
    api = await serve(world)
    assert (await ask(api, track, "B")).status_code == 202
    assert await verdicts(world) == [seen]
    os.utime(path, ns=(1, 1))
    assert (await ask(api, track, "C")).status_code == 202
    assert await verdicts(world) != [seen]
    put_file(world, track, make_audio(world.folder / "right.flac", seconds=15))
    assert (await ask(api, track, "D")).status_code == 200


async def test_requests_share_a_decode(database: Database, tmp_path: Path) -> None:
    """Six at once for one file: one decode; when five of them have gone, the sixth gets it."""
    song = make_audio(tmp_path / "song.flac", seconds=1)
    begun: list[Path] = []
    go = asyncio.Event()

    async def counted(
        path: Path, *, expected_ms: int | None, tolerance_s: float, tools: AudioTools
    ) -> AudioFacts:
        begun.append(path)
        await go.wait()
        return await verify(path, expected_ms=expected_ms, tolerance_s=tolerance_s, tools=tools)

    known = Verdicts(database, check=counted)
    tools = find_tools()
    asked = [
        asyncio.create_task(known.verify(song, expected_ms=1000, tolerance_s=1, tools=tools))
        for _ in range(6)
    ]

    async def decodes() -> int:
        return len(begun)

    await eventually(decodes)
    for each in asked[1:]:
        each.cancel()
    await asyncio.wait(asked[1:])
    go.set()
    facts = await asked[0]
    assert facts.duration_ms == 1000
    assert await known.verify(song, expected_ms=1000, tolerance_s=1, tools=tools) == facts
    assert begun == [song]


async def test_who_waits_for_a_decode_keeps_no_place() -> None:
    """With one place, another request is answered meanwhile."""
    go = asyncio.Event()
    inside = asyncio.Event()

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if scope["path"] == "/slow":
            async with without_place():
                inside.set()
                await go.wait()
        await PlainTextResponse("done")(scope, receive, send)

    limited = ConcurrencyLimit(app, door=lambda _: None, at_once=1, patience_s=5)
    sent: list[str] = []

    async def call(path: str) -> None:
        async def send(part: object) -> None:
            sent.append(path)

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        await limited({"type": "http", "path": path, "method": "GET"}, receive, send)

    slow = asyncio.create_task(call("/slow"))
    await inside.wait()
    await call("/quick")
    assert set(sent) == {"/quick"}
    go.set()
    await slow
    assert set(sent) == {"/quick", "/slow"}
