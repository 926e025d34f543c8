"""Requests of the catalog server: taken over, followed, and ended there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from services.bridge import requests_store
from tests.support.bridged import Bridged, bridged
from tests.support.catalog_server_jobs import QueueItem
from tests.support.waits import eventually
from tests.support.world import World, album_id, track_id


@pytest.fixture
async def bridge(still: World) -> AsyncIterator[Bridged]:
    """A still world with a catalog server."""
    async with bridged(still) as made:
        yield made


@pytest.mark.parametrize(
    ("close", "how", "status", "poll_s"),
    [
        ("delete", "deleted", None, "5"),
        ("leave", "left", "PENDING", "1"),
        ("receipt", "receipt", "COMPLETED", "1"),
    ],
)
async def test_what_is_pressed_is_queued_and_ends_there_once_it_plays(
    bridge: Bridged, close: str, how: str, status: str | None, poll_s: str
) -> None:
    """Must hold 6: an item within 5 s, under the user who pressed; ended as BRIDGE_CLOSE says."""
    tracks = bridge.world.add_album(1, 3)
    bridge.server.ingestion = True
    await bridge.run("ingest", BRIDGE_CLOSE=close, BRIDGE_POLL_S=poll_s)
    await eventually(lambda: _read(bridge), within_s=10)
    remote_id, pressed_at = await bridge.press(1), time.monotonic()
    items = await bridge.until_items(3)
    assert time.monotonic() - pressed_at < 5
    assert {item["requested_by_user_id"] for item in items} == {bridge.listener}
    assert {item["priority"] for item in items} == {2}
    await bridge.until_state(remote_id, "followed")
    assert remote_id in bridge.server.queue
    await bridge.place(*tracks)
    await bridge.publish(*tracks)
    row = await bridge.until_state(remote_id, "ended")
    assert (row["how"], row["problem"]) == (how, None)
    found = bridge.server.queue.get(remote_id)
    assert (found.status if found else None) == status
    bells = [bell["user_id"] for bell in bridge.server.uploads.bells]
    assert bells == ([bridge.listener] if close == "receipt" else [])
    assert (
        await bridge.world.rows("SELECT track_id FROM media_files WHERE playable_at IS NULL") == []
    )


async def _read(bridge: Bridged) -> bool:
    return any(path.endswith("/admin/requests") for _, path, _ in bridge.server.calls)


async def test_an_outage_of_the_server_loses_and_doubles_nothing(bridge: Bridged) -> None:
    """Must hold 6: after an hour its queue is emptied, and each request is ours once."""
    tracks = bridge.world.add_album(1, 2)
    for number in (2, 3):
        tracks += bridge.world.add_album(number, 2)
    running = await bridge.run("ingest")
    first = await bridge.press(1)
    await bridge.until_state(first, "followed")
    await bridge.server.stop()
    breaker = running.app.health.breaker("catalog_server")
    await eventually(lambda: _is(not breaker.ok))
    # What an hour of failures leaves: the longest pause, which then ends.
    later = [
        bridge.server.ask(bridge.listener, "ALBUM", album_id(2)),
        bridge.server.ask(bridge.listener, "TRACK_AUDIO", track_id(3001)),
    ]
    await bridge.place(*tracks[:2])
    await bridge.publish(*tracks[:2])
    await bridge.server.start()
    breaker.retry_at = running.app.clock.monotonic()
    breaker.passable.set()
    await bridge.until_state(first, "ended")
    for remote_id in later:
        await bridge.until_state(remote_id, "followed")
    await bridge.place(*tracks[2:5])
    await bridge.publish(*tracks[2:5])
    for remote_id in later:
        await bridge.until_state(remote_id, "ended")
    assert bridge.server.queue == {}
    items = await bridge.world.items()
    assert sorted(item["track_id"] for item in items) == sorted(tracks[:5])
    assert {item["retry_count"] for item in items} == {0}


async def test_an_announcement_that_is_lost_is_made_again(
    bridge: Bridged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream of requests is emptied before ingest has read it."""
    monkeypatch.setattr(requests_store, "ANNOUNCE_S", 0.3)
    bridge.world.add_album(1, 1)
    await bridge.run()
    remote_id = await bridge.press(1)
    announced = await eventually(
        lambda: bridge.request(remote_id), lambda row: row is not None and row["announced"] > 0
    )
    assert announced is not None
    assert announced["state"] == "found"
    await bridge.world.nats.stop()
    bridge.world.nats.forget()
    await bridge.world.nats.start()
    await bridge.world.run("ingest")
    await bridge.until_state(remote_id, "followed")
    assert len(await bridge.until_items(1)) == 1


async def test_what_is_deleted_there_is_withdrawn_here(bridge: Bridged) -> None:
    """By an administrator, or by another program that completed it."""
    bridge.world.add_album(1, 2)
    await bridge.run("ingest")
    remote_id = await bridge.press(1)
    await bridge.until_items(2)
    del bridge.server.queue[remote_id]
    row = await bridge.until_state(remote_id, "withdrawn")
    assert "another" in row["problem"]
    items = await eventually(
        bridge.world.items, lambda items: all(item["status"] == "FAILED" for item in items)
    )
    assert {item["error_type"] for item in items} == {"cancelled"}
    # As after a restore of the server's database: it is asked for again, under another id.
    bridge.server.queue[remote_id] = QueueItem(
        id=remote_id,
        content_type="ALBUM",
        content_id=album_id(1),
        content_name="Album 1",
        artist_name=None,
        requested_by_user_id=bridge.listener,
        created_at=1,
    )
    row = await bridge.until_state(remote_id, "followed")
    assert row["request_id"] == f"{remote_id}.2"
    await bridge.until_items(4)


async def test_what_ingest_refuses_is_shown_and_not_asked_again_at_once(bridge: Bridged) -> None:
    """An album that the catalog does not have, an id that is none, and the administrator's name."""
    bridge.world.add_album(1, 1)
    await bridge.run("ingest")
    unknown = bridge.server.ask(bridge.listener, "ALBUM", album_id(77))
    malformed = bridge.server.ask(bridge.listener, "TRACK_AUDIO", "../../etc")
    reserved = bridge.server.ask("admin", "ALBUM", album_id(2))
    image = bridge.server.ask(None, "ALBUM_IMAGE", album_id(1))
    assert (await bridge.until_state(unknown, "rejected"))["problem"] == (
        f"the catalog has no album {album_id(77)}"
    )
    assert "is not an id" in (await bridge.until_state(malformed, "rejected"))["problem"]
    assert "administrator" in (await bridge.until_state(reserved, "rejected"))["problem"]
    later = await bridge.press(1)
    await bridge.until_state(later, "followed")
    sql = "SELECT 1 FROM events WHERE kind = 'request.rejected'"
    assert len(await bridge.world.rows(sql)) == 1
    assert await bridge.request(image) is None
    assert {unknown, malformed, reserved} <= bridge.server.queue.keys()
    # The catalog may have it an hour later.
    bridge.world.add_album(77, 1)
    await bridge.world.execute(
        "UPDATE bridge_requests SET due_at = now() WHERE remote_id = $1", unknown
    )
    row = await bridge.until_state(unknown, "followed")
    assert row["problem"] is None


async def test_what_failed_stays_with_its_reason_and_ends_when_it_plays_later(
    bridge: Bridged,
) -> None:
    """Whoever brought the missing track."""
    tracks = bridge.world.add_album(1, 2)
    await bridge.run("ingest")
    remote_id = await bridge.press(1)
    await bridge.until_items(2)
    await bridge.place(tracks[0])
    await bridge.publish(tracks[0])
    await bridge.world.execute(
        "UPDATE queue_items SET stage = 'failed', completed_at = 1, error_type = 'not_found',"
        " error_message = 'no release' WHERE track_id = $1",
        tracks[1],
    )
    row = await eventually(
        lambda: bridge.request(remote_id), lambda row: row is not None and bool(row["problem"])
    )
    assert row is not None
    assert (row["state"], row["problem"]) == ("followed", "1 of 2 tracks failed: no release")
    assert bridge.server.queue[remote_id].status == "PENDING"
    await bridge.place(tracks[1])
    await bridge.publish(tracks[1])
    await bridge.world.execute("UPDATE bridge_requests SET due_at = now()")
    assert (await bridge.until_state(remote_id, "ended"))["how"] == "deleted"
    assert remote_id not in bridge.server.queue


async def _is(value: bool) -> bool:
    return value
