"""The main job, from request to verified file, over both doors."""

from __future__ import annotations

import uuid

from shared.bus.subjects import REQUEST_ALBUM
from tests.support.world import World, album_id, eventually


async def test_albums_over_http_and_nats_end_as_files(world: World) -> None:
    """12 tracks over HTTP and 12 over NATS: 24 verified files, 24 audio.ready that name them."""
    wanted = [*world.add_album(1, 12), *world.add_album(2, 12)]
    running = await world.run()
    assert running.api is not None
    answer = await running.api.post(f"/v1/download/album/{album_id(1)}")
    assert answer.status_code == 202, answer.text
    assert answer.json()["queued"] == 12
    request_id = str(uuid.uuid4())
    await world.publish(
        REQUEST_ALBUM,
        {"v": 1, "request_id": request_id, "user_id": "42", "album_id": album_id(2)},
    )
    items = await world.until_ended(24)
    assert {item["status"] for item in items} == {"COMPLETED"}
    assert set(world.files()) == set(wanted)
    ready = await eventually(
        lambda: world.events("audio.ready.*"), lambda events: len(events) == 24
    )
    assert {event["body"]["track_id"] for event in ready} == set(wanted)
    for event in ready:
        body = event["body"]
        path = world.media / body["audio_uri"]
        assert path.stat().st_size == body["size_bytes"]
        assert event["headers"]["Nats-Msg-Id"] == body["event_id"]
    albums = await eventually(
        lambda: world.events("album.completed.*"), lambda events: len(events) == 2
    )
    assert {e["body"]["completed"] for e in albums} == {12}
    again = str(uuid.uuid4())
    await world.publish(
        REQUEST_ALBUM, {"v": 1, "request_id": again, "user_id": "42", "album_id": album_id(1)}
    )
    await eventually(
        lambda: world.events("album.completed.*"),
        lambda events: any(
            e["body"]["request_ids"] == [again] and e["body"]["already_available"] == 12
            for e in events
        ),
    )
    assert world.live_tickets() == []
    assert world.ticket_folders() == []
