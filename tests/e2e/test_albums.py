"""Albums out of real torrents: many files, wrong names, missing tracks, one search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.local.torrentino import Song
from shared.media.paths import audio_uri
from tests.support.ingest_helpers import ask, ask_album, serve
from tests.support.releases import (
    ARTIST,
    GROUPED,
    Release,
    length_s,
    make_release,
    sees_downloads,
    sha256,
)
from tests.support.stages import assert_lawful, tickets
from tests.support.world import World, eventually

CREATE = "POST /tickets"
PROCESS = "POST /pipeline/process/{id}"


def assert_originals(world: World, album: Release, tracks: Sequence[str]) -> None:
    """Each of these tracks has its own audio, byte for byte."""
    files = world.files()
    assert set(files) == set(tracks)
    assert {id_: sha256(files[id_]) for id_ in tracks} == {
        id_: sha256(album.tracks[id_]) for id_ in tracks
    }


async def test_twelve_tracks_from_one_torrent_with_one_search(world: World) -> None:
    """The pipeline fails as the real one does on a folder: twelve originals all the same."""
    album = make_release(world, 12)
    world.add_torrent(album.title, album.files())
    api = await serve(
        world, "ingest", "ticketer", "poller", "fetcher_writer", **sees_downloads(world)
    )
    await ask_album(api, album.id, "42")
    items = await world.until_ended(12)
    assert {(i["status"], i["attempt"], i["retry_count"]) for i in items} == {("COMPLETED", 1, 0)}
    assert_originals(world, album, album.ids)
    assert world.standin.requests[CREATE] == 1
    assert world.standin.requests[PROCESS] == 0
    [remote] = world.standin.tickets()
    assert remote["state"]["type"] == "failed"  # type: ignore[index]
    await assert_lawful(world)


async def test_twelve_tracks_by_torrentinos_own_pipeline(world: World) -> None:
    """Without the torrents' folder: the pipeline is told once which files to place."""
    album = make_release(world, 12)
    world.add_torrent(album.title, album.files())
    api = await serve(world, "ingest", "ticketer", "poller", "fetcher_writer", **GROUPED)
    await ask_album(api, album.id, "42")
    items = await world.until_ended(12)
    assert {(i["status"], i["retry_count"]) for i in items} == {("COMPLETED", 0)}
    assert set(world.files()) == set(album.ids)
    rows = await world.rows("SELECT track_id, duration_ms FROM media_files ORDER BY track_id")
    assert [round(row["duration_ms"] / 1000, 1) for row in rows] == [
        length_s(n) for n in range(1, 13)
    ]
    assert world.standin.requests[CREATE] == 1
    assert world.standin.requests[PROCESS] == 1
    await assert_lawful(world)


async def test_what_the_torrent_lacks_goes_on_by_track(world: World) -> None:
    """Eight of twelve are in the torrent; the other four are searched for one by one, unburnt."""
    album = make_release(world, 12)
    # With a listing that lacks a third, Torrentino would want it approved.
    world.add_torrent(album.title, album.files(range(1, 9)), listed=False)
    world.songs += [
        Song(artist=ARTIST, title=album.name(n), path=album.tracks[album.ids[n - 1]])
        for n in range(9, 13)
    ]
    api = await serve(
        world, "ingest", "ticketer", "poller", "fetcher_writer", **sees_downloads(world)
    )
    await ask_album(api, album.id, "42")
    items = await world.until_ended(12)
    assert [(i["status"], i["retry_count"]) for i in items] == [("COMPLETED", 0)] * 12
    assert [i["attempt"] for i in items] == [1] * 8 + [2] * 4
    assert_originals(world, album, album.ids)
    assert world.standin.requests[CREATE] == 5
    assert [row["kind"] for row in await tickets(world)] == ["album", *["track"] * 4]
    await assert_lawful(world)


async def test_swapped_names_are_put_right_by_length(world: World) -> None:
    """Tracks 3 and 4 bear each other's names in the torrent, and in Torrentino's mapping."""
    album = make_release(world, 6)
    files = album.files()
    third, fourth = album.path(3), album.path(4)
    files[third], files[fourth] = files[fourth], files[third]
    world.add_torrent(album.title, files)
    api = await serve(
        world, "ingest", "ticketer", "poller", "fetcher_writer", **sees_downloads(world)
    )
    await ask_album(api, album.id, "42")
    items = await world.until_ended(6)
    assert {(i["status"], i["retry_count"]) for i in items} == {("COMPLETED", 0)}
    assert_originals(world, album, album.ids)


async def test_what_is_there_already_is_not_fetched(world: World) -> None:
    """Five of twelve lie in the library: seven are fetched, the five are as they were."""
    album = make_release(world, 12)
    world.add_torrent(album.title, album.files())
    there = album.ids[:5]
    before = {}
    for id_ in there:
        path = world.media / audio_uri(id_, "flac")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(album.tracks[id_].read_bytes())
        before[id_] = path.stat()
    api = await serve(
        world, "ingest", "ticketer", "poller", "fetcher_writer", **sees_downloads(world)
    )
    answer = (await ask_album(api, album.id, "42")).json()
    assert (answer["queued"], answer["already_available"]) == (7, 5)
    await world.until_ended(12)  # the five are adopted, each with its item
    assert_originals(world, album, album.ids)
    after = {id_: (world.media / audio_uri(id_, "flac")).stat() for id_ in there}
    assert {id_: (s.st_ino, s.st_mtime_ns) for id_, s in after.items()} == {
        id_: (s.st_ino, s.st_mtime_ns) for id_, s in before.items()
    }
    fetched = await world.rows("SELECT DISTINCT item_id FROM events WHERE stage = 'fetching'")
    assert len(fetched) == 7
    assert world.standin.requests[CREATE] == 1


async def test_a_single_track_comes_out_of_an_album(world: World) -> None:
    """Only an album's torrent has it: its own ticket would wait for a person, so it is asked for
    by its album, and one file of the torrent is taken."""
    album = make_release(world, 4)
    world.add_torrent(album.title, album.files())
    api = await serve(
        world, "ingest", "ticketer", "poller", "fetcher_writer", **sees_downloads(world)
    )
    await ask(api, album.ids[2], "42")
    [item] = await world.until_ended(1)
    assert (item["status"], item["retry_count"]) == ("COMPLETED", 0)
    assert_originals(world, album, album.ids[2:3])
    assert [row["kind"] for row in await tickets(world)] == ["track", "album"]
    await assert_lawful(world)


async def test_an_album_is_converted(world: World) -> None:
    """AUDIO_FORMAT=opus: every file is Opus, as long as before, and the torrent is untouched."""
    album = make_release(world, 4)
    torrent = album.files()
    world.add_torrent(album.title, torrent)
    api = await serve(
        world,
        "ingest",
        "ticketer",
        "poller",
        "fetcher_writer",
        **sees_downloads(world) | {"AUDIO_FORMAT": "opus"},
    )
    await ask_album(api, album.id, "42")
    items = await world.until_ended(4)
    assert {item["status"] for item in items} == {"COMPLETED"}
    rows = await world.rows("SELECT codec, ext, duration_ms FROM media_files ORDER BY track_id")
    assert {(row["codec"], row["ext"]) for row in rows} == {("opus", "opus")}
    assert [round(row["duration_ms"] / 1000, 1) for row in rows] == [
        length_s(n) for n in range(1, 5)
    ]
    for name, source in torrent.items():
        assert sha256(world.downloads / name) == sha256(source)

    # They are removed right after the item is completed.
    async def parts() -> list[Path]:
        return list((world.media / ".incoming").glob("*.part"))

    await eventually(parts, lambda found: not found)
    stages_ = await world.rows("SELECT DISTINCT item_id FROM events WHERE stage = 'converting'")
    assert len(stages_) == 4
    await assert_lawful(world)
