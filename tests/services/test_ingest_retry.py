"""POST items/{id}/retry: a FAILED item starts again; its old attempt has no effect any more."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import asyncpg
import httpx
import nats

from shared.bus.subjects import REQUEST_CANCEL, REQUESTS_STREAM
from shared.states import Stage
from tests.services.test_ingest_cancel import cancel, queued
from tests.support.audio import make_audio
from tests.support.ingest_helpers import (
    V1,
    ask,
    ask_album,
    assert_problem,
    in_outbox,
    put_file,
    serve,
)
from tests.support.stages import Stages, assert_lawful, one, tickets, timeline
from tests.support.world import ADMIN, Row, World, album_id, as_user, eventually


async def retry(api: httpx.AsyncClient, item_id: str, user: str | None = None) -> httpx.Response:
    """Retry an item, as a user when one is named."""
    return await api.post(f"{V1}/items/{item_id}/retry", headers=as_user(user) if user else ADMIN)


async def fail(by_hand: Stages, item: Row, **state: object) -> None:
    """Let the ticket of an item end at Torrentino so that the item fails for good."""
    by_hand.set_state(item, **(state or {"type": "rejected", "reason": "by hand"}))
    await by_hand.poll()
    assert (await one(by_hand.world))["stage"] == "failed"


async def test_a_retry_clears_the_old_attempt(still: World, by_hand: Stages) -> None:
    """L-48: errors, times, budget and ticket of the failed attempt are gone, the fence is new, and
    the next attempt has a ticket of its own."""
    [track] = still.add_album(1, 1)
    api = await serve(still)
    item_id = await queued(api, track, "A")
    await by_hand.ticket()
    await still.execute("UPDATE queue_items SET retry_count = 3")
    failed = await one(still)
    await fail(by_hand, failed)
    answer = await retry(api, item_id)
    assert answer.status_code == 202, answer.text
    shown = answer.json()["item"]
    assert (shown["status"], shown["stage"], shown["retry_count"]) == ("PENDING", "queued", 0)
    for name in ("error_type", "error_message", "error_evidence", "started_at", "completed_at",
                 "torrentino_ticket_id", "next_attempt_at", "waits_until", "progress"):  # fmt: skip
        assert shown[name] is None, name
    assert shown["queue_position"] == 1
    item = await one(still)
    assert item["ticket_id"] is None
    assert item["fence"] != failed["fence"]
    assert "administrator" in item["reason"]
    assert await by_hand.ticket() == 1
    item = await one(still)
    assert item["attempt"] == 2
    assert item["torrentino_ticket_id"] != failed["torrentino_ticket_id"]
    assert len(await tickets(still)) == 2
    await assert_lawful(still)


async def test_late_results_of_the_old_attempt_change_nothing(
    still: World, by_hand: Stages
) -> None:
    """L-48: while attempt 1's ticket is withdrawn no second one is made; it ends completed, with a
    file, during attempt 2, and moves nothing; attempt 2's ticket counts."""
    [track] = still.add_album(1, 1)
    api = await serve(still)
    item_id = await queued(api, track, "A")
    await by_hand.ticket()
    first = await one(still)
    by_hand.set_state(first, type="downloading", info_hash="a" * 40, progress_pct=1.0)
    await by_hand.poll()
    await cancel(api, item_id, "A")
    assert (await retry(api, item_id, "A")).status_code == 202
    assert await by_hand.ticket() == 0, "two live tickets for one track"
    [old] = await tickets(still)
    assert old["state"] == "withdrawing"
    late = await one(still)
    by_hand.set_state(first, type="completed", stats={"files_placed": 1})
    await by_hand.poll()
    assert await one(still) == late
    assert await by_hand.ticket() == 1
    second = await one(still)
    assert (second["stage"], second["attempt"]) == ("searching", 2)
    # The row of attempt 1, opened again: as by a poller that read it long ago.
    await still.execute("UPDATE tickets SET state = 'open' WHERE id = $1", old["id"])
    await by_hand.poll()
    assert (await one(still))["stage"] == "searching"
    assert await by_hand.fetch() == 0
    assert (await one(still))["torrentino_ticket_id"] == second["torrentino_ticket_id"]


async def test_a_worker_of_the_old_attempt_is_locked_out(still: World, by_hand: Stages) -> None:
    """L-48: cancelled and retried while a ticketer holds it: its ticket is not recorded, and is
    cancelled before the retry gets its own."""
    [track] = still.add_album(1, 1)
    api = await serve(still)
    item_id = await queued(api, track, "A")
    still.faults.delay_s = 0.5
    ticketing = asyncio.create_task(by_hand.ticket())
    await eventually(lambda: _tickets_at_torrentino(still))
    await cancel(api, item_id, "A")
    await retry(api, item_id, "A")
    await ticketing
    still.faults.delay_s = 0.0
    item = await one(still)
    assert (item["stage"], item["torrentino_ticket_id"]) == ("queued", None)

    async def again() -> int:
        await by_hand.poll()
        assert len(still.live_tickets()) <= 1, "two live tickets for one track"
        return await by_hand.ticket()

    await eventually(again)
    old, new = still.standin.tickets()
    assert old["state"]["type"] == "cancelled"  # type: ignore[index]
    assert (await one(still))["torrentino_ticket_id"] == new["id"]


async def _tickets_at_torrentino(world: World) -> list[Any]:
    return list(world.standin.tickets())


async def test_a_retry_completes(world: World) -> None:
    """Failed, mended, retried: the file arrives; the history replays to the row."""
    [track] = world.add_album(1, 1)
    world.faults.fates["song 1001"] = "not_found"
    api = await serve(world, "ingest", "ticketer", "poller", "fetcher_writer", MAX_RETRIES="0")
    item_id = await queued(api, track, "A")
    [item] = await world.until_ended(1)
    assert (item["status"], item["error_type"]) == ("FAILED", "not_found")
    del world.faults.fates["song 1001"]
    await retry(api, item_id, "A")
    [item] = await world.until_ended(1)
    assert (item["status"], item["error_type"]) == ("COMPLETED", None)
    assert list(world.files()) == [track]
    passed = await timeline(world)
    assert passed.count("queued") == 2
    assert passed[-1] == "completed"
    assert Stage.FAILED in passed


async def test_why_not(world: World) -> None:
    """409 says what to do: not FAILED, queued again, or there meanwhile; 404 for others' items."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    item_id = await queued(api, tracks[0], "A")
    answer = await retry(api, item_id, "A")
    assert_problem(answer, 409, "conflict")
    assert "PENDING" in answer.json()["detail"]
    assert_problem(await retry(api, item_id, "B"), 404, "unknown")
    assert_problem(await retry(api, "none-such"), 404, "unknown")
    assert_problem(await retry(api, "a%20b"), 422, "invalid-request")
    await cancel(api, item_id, "A")
    newer = await queued(api, tracks[0], "A")
    assert newer != item_id
    answer = await retry(api, item_id, "A")
    assert_problem(answer, 409, "conflict")
    assert newer in answer.json()["detail"]
    await cancel(api, newer, "A")
    put_file(world, tracks[0], make_audio(world.folder / "song.flac", seconds=8))
    answer = await retry(api, item_id, "A")
    assert_problem(answer, 409, "conflict")
    assert "in place" in answer.json()["detail"]
    assert {item["status"] for item in await world.items()} == {"FAILED"}


async def test_retry_and_request_at_once_make_one_active_item(world: World) -> None:
    """The retry's track is queued while the retry is decided: 409, and one active item."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item_id = await queued(api, track, "A")
    await cancel(api, item_id, "A")
    connection = await asyncpg.connect(world.database_url)
    try:
        other = connection.transaction()
        await other.start()
        await connection.execute(
            "INSERT INTO queue_items (id, track_id, status, stage, priority, actor, track_name)"
            " VALUES ('newer', $1, 'PENDING', 'queued', 2, 'test', 'x')",
            track,
        )
        retrying = asyncio.create_task(retry(api, item_id, "A"))
        await eventually(
            lambda: world.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        )
        await other.commit()
    finally:
        await connection.close()
    assert_problem(await retrying, 409, "conflict")
    answers = await asyncio.gather(*(retry(api, item_id, "A") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {409}
    active = [item for item in await world.items() if item["status"] == "PENDING"]
    assert [item["id"] for item in active] == ["newer"]


async def test_a_retry_counts_in_the_queue_limit(world: World) -> None:
    """One place left in the queue: of two retries at once one is accepted; admins have no limit."""
    tracks = world.add_album(1, 3)
    api = await serve(world, USER_MAX_QUEUE_SIZE="2")
    items = []
    for track in tracks[:2]:
        items.append(await queued(api, track, "A"))
        await cancel(api, items[-1], "A")
    await queued(api, tracks[2], "A")
    answers = await asyncio.gather(*(retry(api, item_id, "A") for item_id in items))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    left = next(item_id for item_id, a in zip(items, answers, strict=True) if a.status_code == 409)
    assert_problem(await retry(api, left, "A"), 409, "limit-reached")
    usage = (await api.get(f"{V1}/limits", headers=as_user("A"))).json()
    assert (usage["in_queue"], usage["requests_today"]) == (2, 4)
    assert (await retry(api, left)).status_code == 202


async def test_who_waits_after_a_retry(world: World) -> None:
    """L-39: requesters that had not withdrawn wait, as does the retrying user, and no other; an
    administrator who retries an item without requesters hears of it."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    first, second = [await queued(api, track, "A", "B", "C") for track in tracks]
    for user in ("A", "B"):
        await cancel(api, first, user)
    await world.execute(
        "UPDATE queue_items SET stage = 'failed', completed_at = 1, error_type = 'not_found'"
        " WHERE id = $1",
        first,
    )
    await retry(api, first, "A")
    for user in ("A", "B", "C"):
        await cancel(api, second, user)
    await retry(api, second)
    waiting = await world.rows(
        "SELECT item_id, user_id FROM item_requesters WHERE withdrawn_at IS NULL ORDER BY user_id"
    )
    assert [(row["item_id"], row["user_id"]) for row in waiting] == [
        (first, "A"),
        (first, "C"),
        (second, "admin"),
    ]


async def test_a_withdrawal_that_comes_twice_spares_a_retry(world: World) -> None:
    """I5, found by the crash search (`--points ledger.ready`): a withdrawal over NATS that is
    delivered once more, after its item was retried, changes nothing."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item_id = await queued(api, track, "A")
    [asked] = await world.rows("SELECT request_id FROM item_requesters")
    withdrawal = {"v": 1, "request_id": asked["request_id"], "user_id": "A"}
    await world.publish(REQUEST_CANCEL, withdrawal)
    await eventually(lambda: timeline(world), lambda stages: stages[-1] == "failed")
    assert (await retry(api, item_id, "A")).status_code == 202
    await world.publish(REQUEST_CANCEL, withdrawal)
    await eventually(lambda: _unhandled(world), lambda count: count == 0)
    assert (await timeline(world)) == ["queued", "failed", "queued"]


async def _unhandled(world: World) -> int:
    client = await nats.connect(world.nats.url)
    try:
        return int((await client.jetstream().stream_info(REQUESTS_STREAM)).state.messages)
    finally:
        await client.close()


async def test_a_retried_track_completes_its_album_again(world: World) -> None:
    """`album.completed` was told with a failed track; after its retry it is told with true counts,
    to those who still wait for it."""
    tracks = world.add_album(1, 2)
    world.faults.fates["song 1002"] = "not_found"
    api = await serve(world, "ingest", "ticketer", "poller", "fetcher_writer", MAX_RETRIES="0")
    await ask_album(api, album_id(1), "A")
    failed = await eventually(
        lambda: world.rows("SELECT id FROM queue_items WHERE status = 'FAILED'")
    )
    await world.until_ended(2)
    [told] = await in_outbox(world, "album.completed")
    assert (told["completed"], told["failed"]) == (1, 1)
    del world.faults.fates["song 1002"]
    await retry(api, failed[0]["id"], "A")
    await eventually(world.items, lambda items: all(i["status"] == "COMPLETED" for i in items))
    _, told = await in_outbox(world, "album.completed")
    assert (told["completed"], told["failed"], told["user_ids"]) == (2, 0, ["A"])
    assert sorted(world.files()) == sorted(tracks)


async def test_a_user_may_ask_for_a_failed_track_anew(world: World) -> None:
    """A new request makes a new item, and the old one can no longer be retried beside it."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    old = await queued(api, track, "A")
    await cancel(api, old, "A")
    assert (await ask(api, track, "B")).status_code == 202
    assert_problem(await retry(api, old, "A"), 409, "conflict")


async def test_the_command_line_cancels_and_retries(world: World) -> None:
    """`cancel` and `retry` print the items, as JSON when asked, and say why not."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item_id = await queued(api, track, "A")

    async def command(*args: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *args, "--url", str(api.base_url)),
            env=os.environ | world.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    _, shown = await command("cancel", item_id, "--for-all", "--json")
    assert json.loads(shown)["item"]["error_message"] == "cancelled by an administrator"
    code, shown = await command("retry", item_id)
    assert (code, item_id in shown) == (0, True)
    assert (await one(world))["status"] == "PENDING"
    code, shown = await command("retry", item_id)
    assert (code, "PENDING" in shown) == (1, True)
