"""Items as the API shows them, and the lists of them."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.support.ingest_helpers import V1, ask, ask_album, assert_problem, serve
from tests.support.stages import Stages
from tests.support.world import World, album_id, as_user

FIELDS = {
    "id": str, "track_id": str, "album_id": str, "track_name": str, "artist_name": str,
    "album_name": str, "status": str, "stage": str, "priority": int, "created_at": int,
    "started_at": int, "completed_at": int, "retry_count": int, "next_attempt_at": int,
    "error_type": str, "error_message": str, "torrentino_ticket_id": str,
    "requested_by_user_id": str, "bytes_downloaded": int, "processing_duration_ms": int,
    "queue_position": int, "progress": dict,
}  # fmt: skip
ALWAYS = {"id", "track_id", "track_name", "status", "stage", "priority", "created_at",
          "retry_count"}  # fmt: skip


def assert_item(item: dict[str, Any]) -> None:
    """The contract's fields, each of its type or null."""
    for name, type_ in FIELDS.items():
        assert name in item, name
        if item[name] is not None or name in ALWAYS:
            assert type(item[name]) is type_, (name, item[name])


async def mine(api: httpx.AsyncClient, user: str = "42", **query: object) -> dict[str, Any]:
    """A page of a user's requests."""
    answer = await api.get(
        f"{V1}/my-requests",
        headers=as_user(user),
        params={name: str(value) for name, value in query.items()},
    )
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_an_item_has_the_fields_of_the_contract(world: World) -> None:
    """L-22, L-28: the exact names and types, from the first answer to the finished item, and read
    as written: a GET right after the POST shows it."""
    tracks = world.add_album(1, 2)
    world.songs[:] = [song for song in world.songs if song.title != "Song 1002"]
    api = await serve(world, MAX_RETRIES="0")
    for track in tracks:
        answer = await ask(api, track, "42")
        item = answer.json()["item"]
        assert_item(item)
        assert (item["status"], item["stage"], item["priority"]) == ("PENDING", "queued", 2)
        shown = (await api.get(answer.headers["location"], headers=as_user("42"))).json()
        assert {name: shown[name] for name in item} == item
        assert item in (await mine(api))["items"]
    assert [item["queue_position"] for item in (await mine(api))["items"]] == [1, 2]
    await world.run("ticketer", "poller", "fetcher_writer", MAX_RETRIES="0")
    await world.until_ended(2)
    failed, done = (await mine(api))["items"]
    assert_item(done)
    assert_item(failed)
    assert (done["status"], done["queue_position"], done["progress"]) == ("COMPLETED", None, None)
    assert done["bytes_downloaded"] > 0
    assert done["created_at"] <= done["started_at"] <= done["completed_at"]
    assert (failed["status"], failed["error_type"]) == ("FAILED", "not_found")
    assert failed["error_message"]


async def test_the_timeline_tells_every_move(world: World) -> None:
    """Each transition once, in order, with when, by which service and why."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    item_id = (await ask(api, track, "42")).json()["item"]["id"]
    await world.run("ticketer", "poller", "fetcher_writer")
    await world.until_ended(1)
    timeline = (await api.get(f"{V1}/items/{item_id}", headers=as_user("42"))).json()["timeline"]
    stages = [entry["stage"] for entry in timeline]
    assert stages[:2] == ["queued", "ticketing"]
    assert stages[-4:] == ["ready", "fetching", "verifying", "completed"]
    assert [entry["from_stage"] for entry in timeline] == [None, *stages[:-1]]
    assert {entry["service"] for entry in timeline} == {
        "ingest", "ticketer", "poller", "fetcher_writer",
    }  # fmt: skip
    times = [entry["at"] for entry in timeline]
    assert times == sorted(times)
    assert all(entry["reason"] for entry in timeline)


async def test_positions_are_the_order_of_the_scheduler(world: World) -> None:
    """L-50: 1..n without gaps or ties, urgent before user before background, then by age."""
    tracks = world.add_album(1, 6)
    api = await serve(world)
    await ask_album(api, album_id(1), "42")
    await world.execute("UPDATE queue_items SET priority = 1 WHERE track_id = $1", tracks[4])
    await world.execute("UPDATE queue_items SET priority = 3 WHERE track_id = $1", tracks[0])
    items = (await mine(api))["items"]
    assert [item["track_id"] for item in items] == [tracks[n] for n in (4, 1, 2, 3, 5, 0)]
    assert [item["queue_position"] for item in items] == [1, 2, 3, 4, 5, 6]


async def test_active_items_come_first_whatever_there_is_behind_them(world: World) -> None:
    """L-09, L-10: 300 finished items and one that waits: it stands on the first page."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    await world.execute(
        "INSERT INTO requests (id, user_id, kind, content_id, priority, source, charged)"
        " VALUES ('old', '42', 'album', 'x', 2, 'http', false)"
    )
    await world.execute(
        "INSERT INTO queue_items (id, track_id, status, stage, priority, actor, track_name,"
        " completed_at) SELECT 'i' || n, 't' || n, s.status, lower(s.status), 2, 'test', 'x', n"
        " FROM generate_series(1, 300) AS n,"
        " LATERAL (SELECT CASE WHEN n % 2 = 0 THEN 'FAILED' ELSE 'COMPLETED' END AS status) s"
    )
    await world.execute(
        "INSERT INTO item_requesters (item_id, request_id, user_id)"
        " SELECT id, 'old', '42' FROM queue_items"
    )
    await ask(api, track, "42")
    first = await mine(api, limit=50)
    assert first["items"][0]["track_id"] == track
    assert (first["total"], first["has_more"]) == (301, True)
    seen = [item["id"] for item in first["items"]]
    while (page := await mine(api, limit=50, offset=len(seen)))["items"]:
        seen += [item["id"] for item in page["items"]]
        assert page["has_more"] is (len(seen) < 301)
    assert len(seen) == len(set(seen)) == 301
    failed = (await api.get(f"{V1}/admin/failed", params={"limit": 200})).json()
    assert (failed["total"], failed["has_more"]) == (150, False)
    assert [item["id"] for item in failed["items"]][:2] == ["i300", "i298"]
    assert {item["status"] for item in failed["items"]} == {"FAILED"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "my-requests?status=FAILED"),
        ("GET", "my-requests?limit=1&limit=2"),
        ("GET", "limits?limit=1"),
        ("GET", "admin/failed?Limit=1"),
        ("GET", "admin/stats?status=NONSENSE"),
        ("DELETE", "items/some-item?forall=true"),
        ("POST", "track/some-track?priority=1"),
    ],
)
async def test_a_parameter_that_is_not_known_is_refused(
    world: World, method: str, path: str
) -> None:
    """F39, L-57: left out silently, it would give rows that were not asked for."""
    api = await serve(world)
    answer = await api.request(method, f"{V1}/{path}")
    assert_problem(answer, 422, "invalid-request")
    assert path.partition("?")[2].partition("=")[0] in answer.json()["detail"]


async def test_paging_has_bounds(world: World) -> None:
    """L-56, L-57: a limit or an offset that is none, or too large, is 422 and names itself."""
    api = await serve(world)
    bad = (
        "limit=0", "limit=201", "limit=-1", "limit=abc", "limit=", "limit=1.5",
        "limit=9999999999999999999999", "limit=%D9%A3", "limit=%00", "offset=-1", "offset=abc",
        "offset=1000001", "offset=99999999999999999999",
    )  # fmt: skip
    for route in ("my-requests", "admin/failed"):
        for query in bad:
            answer = await api.get(f"{V1}/{route}?{query}")
            assert_problem(answer, 422, "invalid-request")
            assert query.partition("=")[0] in answer.json()["detail"]
        for query in ("limit=1", "limit=200", "offset=1000000"):
            answer = await api.get(f"{V1}/{route}?{query}")
            assert answer.json()["items"] == []
            assert answer.json()["has_more"] is False


async def test_stats_tell_of_the_queue_and_the_world(world: World) -> None:
    """Counts by status, stage and priority, ages, rates, tickets, and the health of all four."""
    tracks = world.add_album(1, 3)
    api = await serve(world)
    await ask_album(api, album_id(1), "42")
    await world.execute("UPDATE queue_items SET priority = 3 WHERE track_id = $1", tracks[0])
    await world.execute("UPDATE queue_items SET created_at = created_at - 100")
    stats = (await api.get(f"{V1}/admin/stats")).json()
    assert stats["by_status"] == {"PENDING": 3, "DOWNLOADING": 0, "COMPLETED": 0, "FAILED": 0}
    assert stats["by_stage"]["queued"] == 3
    assert stats["by_priority"] == {"1": 0, "2": 2, "3": 1}
    assert 100 <= stats["oldest_pending_age_s"] < 200
    assert stats["tickets"]["in_flight"] == 0
    assert stats["rates"]["completed_last_day"] == 0
    assert stats["health"]["postgres"]["ok"] is True
    assert stats["health"]["nats"]["ok"] is True
    assert stats["health"]["media"]["ok"] is True
    assert stats["health"]["media"]["free_mb"] > 0
    assert stats["health"]["torrentino"]["ok"] is None  # this process never asks it


async def test_every_stage_shows_what_it_waits_for_and_until_when(
    still: World, by_hand: Stages
) -> None:
    """I1: from the queue to the end, `waiting_for` and `waits_until` say what is next."""
    [track] = still.add_album(1, 1)
    api = await serve(still, STALL_TIMEOUT_S="100")
    item_id = (await ask(api, track, "42")).json()["item"]["id"]

    async def shown() -> tuple[str, str | None, int | None]:
        item = (await api.get(f"{V1}/items/{item_id}", headers=as_user("42"))).json()
        until = item["waits_until"]
        return item["stage"], item["waiting_for"], until and until - round(time.time())

    assert await shown() == ("queued", "its turn", None)
    await by_hand.ticket()
    ticket = (await still.items())[0]
    for state, stage, why in (
        ("pending", "searching", "Torrentino to find a torrent"),
        ("downloading", "downloading", "Torrentino to download the torrent"),
        ("placing", "processing", "Torrentino to place the file"),
    ):
        by_hand.set_state(ticket, type=state, info_hash="a" * 40, progress_pct=1.0)
        await by_hand.poll()
        *found, until = await shown()
        assert found == [stage, why]
        assert until is not None
        assert 80 <= until <= 101
    by_hand.set_state(ticket, type="needs_approval", candidates=[])
    await by_hand.poll()
    *found, until = await shown()
    assert found == ["needs_approval", "an administrator to approve a torrent at Torrentino"]
    assert until is None
    by_hand.set_state(ticket, type="acquisition_failed", reason="No candidates found")
    await by_hand.poll()
    await still.execute("UPDATE queue_items SET due_at = now() + interval '50 s'")
    *found, until = await shown()
    assert found == ["retry_wait", "the time of its next attempt"]
    assert until in (49, 50, 51)
    await still.execute("UPDATE queue_items SET due_at = now()")
    why = "an earlier ticket of the track to stay cancelled at Torrentino"
    assert await shown() == ("retry_wait", why, None)
    await still.execute("UPDATE tickets SET state = 'closed'")
    assert await shown() == ("retry_wait", "its turn", None)
    await still.execute(
        "UPDATE queue_items SET stage = 'verifying', status = 'DOWNLOADING',"
        " lease_until = now() + interval '50 s'"
    )
    *found, until = await shown()
    assert found == ["verifying", "the file to be decoded"]
    assert until in (49, 50, 51)
    await still.execute(
        "UPDATE queue_items SET stage = 'ready', lease_until = NULL, due_at = now()"
    )
    assert await shown() == ("ready", "a fetcher-writer", None)
