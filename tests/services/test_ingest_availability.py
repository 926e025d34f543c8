"""What is on disk already is said to be there, and only that."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared.bus.subjects import REQUEST_ALBUM
from tests.support.audio import cut, make_audio
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
from tests.support.world import World, album_id, eventually, track_id


@pytest.fixture
def song(world: World) -> Path:
    """A song as long as the tracks of `add_album`."""
    return make_audio(world.folder / "song.flac", seconds=8)


async def test_a_file_without_a_record_is_adopted(world: World, song: Path) -> None:
    """A whole file in place: 200, a COMPLETED item, a ledger row, and audio.ready for the asker."""
    [track] = world.add_album(1, 1)
    placed = put_file(world, track, song)
    api = await serve(world)
    answer = await ask(api, track, "42")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["available"] is True
    assert body["item"]["status"] == "COMPLETED"
    uri = str(placed.relative_to(world.media))
    assert body["item"]["audio_uri"] == uri
    [row] = await world.rows("SELECT * FROM media_files")
    assert (row["track_id"], row["audio_uri"], row["codec"]) == (track, uri, "flac")
    [ready] = await eventually(lambda: world.events("audio.ready.*"))
    assert ready["body"]["user_ids"] == ["42"]
    assert ready["body"]["size_bytes"] == placed.stat().st_size
    again = await ask(api, track, "7")
    assert (again.status_code, again.json()["item"]["id"]) == (200, body["item"]["id"])
    assert len(await world.items()) == 1


async def test_parallel_requests_adopt_a_file_once(world: World, song: Path) -> None:
    """L-38: ten askers, one file without a record: one item, one audio.ready."""
    [track] = world.add_album(1, 1)
    put_file(world, track, song)
    api = await serve(world)
    answers = await asyncio.gather(*(ask(api, track, f"user-{n}") for n in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await world.items()) == 1
    assert len(await in_outbox(world, "audio.ready")) == 1


async def test_adopting_completes_the_item_that_waits(world: World, song: Path) -> None:
    """L-45: a track that becomes available by another path completes its waiting item, for all
    who had asked for it."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    queued = (await ask(api, track, "A")).json()["item"]
    put_file(world, track, song)
    assert (await ask(api, track, "B")).status_code == 200
    [item] = await world.items()
    assert (item["id"], item["status"]) == (queued["id"], "COMPLETED")
    [ready] = await in_outbox(world, "audio.ready")
    assert ready["user_ids"] == ["A", "B"]


async def test_a_file_found_under_an_item_at_work_joins_it(world: World, song: Path) -> None:
    """An item that Torrentino works on is joined, not completed from under it."""
    [track] = world.add_album(1, 1)
    api = await serve(world)
    await ask(api, track, "A")
    await world.execute("INSERT INTO tickets (id, dest_path, priority) VALUES ('t', '/x', 2)")
    await world.execute(
        "UPDATE queue_items SET stage = 'searching', status = 'DOWNLOADING', ticket_id = 't'"
    )
    put_file(world, track, song)
    answer = await ask(api, track, "B")
    assert (answer.status_code, answer.json()["deduplicated"]) == (202, True)
    assert len(await world.rows("SELECT 1 FROM item_requesters")) == 2
    assert await world.rows("SELECT 1 FROM media_files") == []


async def test_a_broken_file_is_asked_for_again(world: World, song: Path) -> None:
    """L-16: a truncated file, an error page and an empty file are no audio: 202."""
    tracks = world.add_album(1, 3)
    cut(put_file(world, tracks[0], song), song)
    put_file(world, tracks[1], song).write_text("<html>not found</html>")
    put_file(world, tracks[2], song).write_bytes(b"")
    api = await serve(world)
    for track in tracks:
        assert (await ask(api, track)).status_code == 202
    assert await world.rows("SELECT 1 FROM media_files") == []


async def test_a_recorded_file_that_is_gone_is_queued_again(world: World, song: Path) -> None:
    """L-12, L-08: completed, file deleted or cut short, asked again: it works."""
    [track] = world.add_album(1, 1)
    placed = put_file(world, track, song)
    api = await serve(world)
    assert (await ask(api, track)).status_code == 200
    placed.unlink()
    answer = await ask(api, track)
    assert answer.status_code == 202
    assert answer.json()["deduplicated"] is False
    assert [item["status"] for item in await world.items()] == ["COMPLETED", "PENDING"]
    placed.parent.rmdir()
    placed.parent.write_text("not a folder")
    assert_problem(await ask(api, track), 503, "unavailable")


async def test_an_album_with_five_of_twelve_present_asks_for_seven(
    world: World, song: Path
) -> None:
    """L-44, L-06: only what is missing is queued; the album ends once, with its last track."""
    tracks = world.add_album(1, 12)
    for track in tracks[::3]:
        put_file(world, track, song)
    api = await serve(world)
    assert (await ask(api, tracks[0])).status_code == 200
    put_file(world, tracks[1], song)
    answer = await ask_album(api, album_id(1), "42")
    body = answer.json()
    assert answer.status_code == 202
    counts = (body["queued"], body["already_queued"], body["already_available"])
    assert counts == (7, 0, 5)
    assert [item["track_id"] for item in body["items"]] == [
        track for track in tracks if track not in (*tracks[::3], tracks[1])
    ]
    assert await in_outbox(world, "album.completed") == []
    await world.run("ticketer", "poller", "fetcher_writer")
    await eventually(lambda: in_outbox(world, "album.completed"))
    assert len(world.files()) == 12
    [done] = await in_outbox(world, "album.completed")
    assert (done["user_ids"], done["failed"]) == (["42"], 0)
    again = (await ask_album(api, album_id(1), "7")).json()
    assert (again["queued"], again["already_available"], again["items"]) == (0, 12, [])


async def test_what_the_catalog_does_not_know_is_404(world: World) -> None:
    """L-42: an unknown track, an unknown album and one without tracks are refused at once."""
    world.add_album(1, 0)
    api = await serve(world)
    assert_problem(await ask(api, track_id(5)), 404, "unknown")
    assert_problem(await ask_album(api, album_id(5)), 404, "unknown")
    assert_problem(await ask_album(api, album_id(1)), 404, "unknown")
    assert await world.rows("SELECT 1 FROM requests") == []


async def test_a_message_that_carries_its_track_needs_no_catalog(world: World) -> None:
    """L-18: what the message carries is used and kept, even when there is no catalog.db."""
    world.catalog.unlink()
    api = await serve(world)
    track = {
        "id": track_id(1),
        "name": "Carried",
        "artists": ["First", "", "Second"],
        "album_id": album_id(1),
        "album": "",
        "disc_number": 1,
        "track_number": 7,
        "duration_ms": 0,
        "isrc": "",
    }
    await send(world, track_id(1), "42", track=track)
    album = {
        "v": 1, "request_id": "album", "user_id": "42", "album_id": album_id(2), "album": "Whole",
        "tracks": [{"id": track_id(2), "name": " "}, {"id": track_id(3), "name": "Third"}],
    }  # fmt: skip
    await world.publish(REQUEST_ALBUM, album)
    items = await eventually(world.items, lambda found: len(found) == 3)
    carried = {item["track_id"]: item for item in items}
    first = carried[track_id(1)]
    assert (first["track_name"], first["artist_name"]) == ("Carried", "First, Second")
    assert (first["main_artist"], first["track_number"]) == ("First", 7)
    # Unknown to the sender, and so unknown here: no length that every file would fail by.
    assert (first["duration_ms"], first["isrc"], first["album_name"]) == (None, None, None)
    second = carried[track_id(2)]
    assert (second["track_name"], second["album_id"]) == (track_id(2), album_id(2))
    assert second["album_name"] == "Whole"
    problem = await ask(api, track_id(1))
    assert_problem(problem, 503, "unavailable")
    assert str(world.catalog) in problem.json()["detail"]
    assert problem.headers["retry-after"]


async def test_what_the_catalog_holds_always_fits(world: World) -> None:
    """Absurd numbers and endless names in the catalog are cut, not a fault for ever."""
    [track] = world.add_album(1, 1)
    with closing(sqlite3.connect(world.catalog)) as catalog, catalog:
        catalog.execute(
            "UPDATE tracks SET name = ?, track_number = ?, disc_number = -5, duration_ms = ?",
            ("n\0" * 500_000, 2**40, 2**62),
        )
        catalog.execute("UPDATE albums SET name = ?", ("a" * 2_000_000,))
    api = await serve(world)
    assert (await ask(api, track)).status_code == 202
    assert (await ask_album(api, album_id(1))).status_code == 202
    [item] = await world.items()
    assert (item["track_number"], item["disc_number"], item["duration_ms"]) == (None, None, None)
    assert item["track_name"] == "n" * 1000
    told = await eventually(lambda: world.events("request.accepted"), lambda e: len(e) == 2)
    assert told[1]["body"]["content_name"] == "a" * 1000


async def test_an_unmounted_media_root_is_503(world: World, song: Path) -> None:
    """Without the mark of the media root nothing can be called missing: nothing is queued."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    await ask(api, tracks[0])
    (world.media / ".incoming" / ".media-root").unlink()
    problem = await ask(api, tracks[1])
    assert_problem(problem, 503, "unavailable")
    assert "mount" in problem.json()["detail"]
    assert len(await world.items()) == 1
    stats = (await api.get(f"{V1}/admin/stats")).json()
    assert stats["health"]["media"]["ok"] is False
