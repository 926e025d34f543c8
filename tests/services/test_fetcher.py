"""The fetcher-writer: what arrives under audio/ is whole, and arrives once."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.fetcher_writer import disk_budget as room
from services.fetcher_writer.finish import Finished
from services.fetcher_writer.work import Work
from shared.errors import DependencyDown, Misconfigured
from shared.media.paths import audio_uri
from shared.media.tools import AudioTools, find_tools
from tests.support.audio import cut, make_audio, overwrite
from tests.support.autoindex import Autoindex
from tests.support.stages import (
    Stages,
    assert_lawful,
    held_by,
    in_audio,
    one,
    queue,
    stages,
    tickets,
    timeline,
)
from tests.support.world import World, eventually

SECONDS = 3.0


async def asked(world: World, count: int = 1) -> list[str]:
    """Tracks of three seconds in the queue."""
    tracks = world.add_album(1, count, seconds=SECONDS)
    await queue(world, tracks, seconds=SECONDS)
    return tracks


def final(world: World, track: str, ext: str = "flac") -> Path:
    return world.media / audio_uri(track, ext)


def parts(world: World) -> list[str]:
    """Temporary files that are left."""
    return [path.name for path in (world.media / ".incoming").glob("*.part")]


async def test_a_finished_ticket_becomes_a_file(world: World) -> None:
    """Collected, verified, placed, recorded, told of, and the incoming folder is removed."""
    (track,) = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        assert await by_hand.fetch() == 1
        item = await one(world)
        assert (item["status"], item["error_type"]) == ("COMPLETED", None)
        assert item["bytes_downloaded"] == final(world, track).stat().st_size
        (ledger,) = await world.rows("SELECT * FROM media_files")
        assert (ledger["track_id"], ledger["codec"], ledger["ext"]) == (track, "flac", "flac")
        assert len(await world.rows("SELECT 1 FROM events WHERE kind = 'audio.ready'")) == 1
        assert (await timeline(world))[-4:] == ["ready", "fetching", "verifying", "completed"]
        assert parts(world) == []
        assert final(world, track).stat().st_mode & 0o777 == 0o644
        await by_hand.clean()
        assert world.ticket_folders() == []
        assert final(world, track).stat().st_nlink == 1
        await assert_lawful(world)


async def test_the_audio_is_found_among_other_files(world: World) -> None:
    """Cover, text and a short second song beside the audio do not get in its way."""
    (track,) = await asked(world)
    folder = world.folder / "extras"
    folder.mkdir()
    (folder / "cover.jpg").write_bytes(b"\xff\xd8" + bytes(300_000))
    (folder / "info.nfo").write_text("who made this")
    sample = make_audio(folder / "sample.mp3", seconds=0.5, codec="mp3")
    world.faults.extra_files["song 1001"] = [*sorted(folder.glob("[ci]*")), sample]
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        assert in_audio(world) == [f"{track}.flac"]
        await by_hand.clean()
        assert world.ticket_folders() == []


async def test_a_bigger_file_that_is_the_wrong_song_is_passed_over(world: World) -> None:
    """Each candidate is verified until one is the right one."""
    (track,) = await asked(world)
    wrong = make_audio(world.folder / "wrong.wav", seconds=30, codec="wav")
    world.faults.extra_files["song 1001"] = [wrong]
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
    assert in_audio(world) == [f"{track}.flac"]
    assert parts(world) == []


@pytest.mark.parametrize("fate", ["no_files", "size_mismatch"])
async def test_what_was_not_placed_is_a_storage_failure(world: World, fate: str) -> None:
    """Torrentino says it is there and it is not: after some patience, with the evidence."""
    await asked(world)
    world.faults.fates["song 1001"] = fate
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        item = await one(world)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "storage")
        evidence = item["error_evidence"]
        assert evidence["found_count"] == (0 if fate == "no_files" else 1)
        assert evidence["final_size_bytes"] != evidence["found_bytes"] or fate == "no_files"
        assert len(by_hand.waits) == 5
        assert sum(by_hand.waits) > 5
        assert in_audio(world) == []
        await by_hand.clean()
        assert world.ticket_folders() == []


async def test_a_listing_that_lags_is_waited_for(world: World) -> None:
    """A folder that shows its file only after a while, as NFS does, costs no attempt."""
    (track,) = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        (folder,) = world.ticket_folders()
        hidden = folder.rename(world.folder / "hidden")

        def appear() -> None:
            if hidden.exists():
                hidden.rename(folder)

        by_hand.on_wait = appear
        await by_hand.fetch()
    assert in_audio(world) == [f"{track}.flac"]


async def test_a_whole_file_in_place_is_adopted(world: World) -> None:
    """A good file is never overwritten: it is taken over, without collecting the other."""
    (track,) = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        mine = make_audio(final(world, track, "mp3"), seconds=SECONDS, codec="mp3")
        before = mine.stat()
        await by_hand.fetch()
        assert in_audio(world) == [f"{track}.mp3"]
        assert (mine.stat().st_ino, mine.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        item = await one(world)
        assert item["status"] == "COMPLETED"
        assert "in place already" in item["reason"]
        assert (await world.rows("SELECT ext FROM media_files"))[0]["ext"] == "mp3"


@pytest.mark.parametrize("how", ["broken", "misnamed", "other extension"])
async def test_a_broken_file_in_place_is_moved_aside(world: World, how: str) -> None:
    """What lies there and is not whole, or lies about its kind, makes way and is kept."""
    (track,) = await asked(world)
    good = make_audio(world.folder / "good.mp3", seconds=SECONDS, codec="mp3")
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        ext = "mp3" if how == "other extension" else "flac"
        there = final(world, track, ext)
        there.parent.mkdir(parents=True)
        if how == "misnamed":
            shutil.copy(good, there)
        else:
            cut(there, good)
        content = there.read_bytes()
        await by_hand.fetch()
        assert in_audio(world) == [f"{track}.flac"]
        (aside,) = (world.media / ".incoming" / "refused").iterdir()
        assert aside.read_bytes() == content
        assert aside.name.endswith(there.name)


async def test_a_broken_twin_of_a_good_file_is_moved_aside(world: World) -> None:
    """Under audio/ nothing broken stays beside the file that is adopted."""
    (track,) = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        good = make_audio(final(world, track, "mp3"), seconds=SECONDS, codec="mp3")
        cut(final(world, track, "flac"), good)
        await by_hand.fetch()
        assert in_audio(world) == [f"{track}.mp3"]


async def test_a_name_taken_while_verifying_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good file that appears under the final name just before ours stays."""
    (track,) = await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        recipe = by_hand.fetcher.recipe
        publish = recipe.publish

        async def late(work: Work, finished: Finished) -> None:
            make_audio(final(world, track), seconds=SECONDS, frequency=880)
            await publish(work, finished)

        monkeypatch.setattr(recipe, "publish", late)
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"
        (ledger,) = await world.rows("SELECT * FROM media_files")
        assert ledger["size_bytes"] == final(world, track).stat().st_size
        assert "in place already" in (await one(world))["reason"]
        assert parts(world) == []


async def test_across_filesystems_the_file_is_copied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a hard link cannot be made, a copy or a reflink arrives just the same."""
    (track,) = await asked(world)
    link = os.link

    def across(source: Path, target: Path, **named: Any) -> None:
        if "src_dir_fd" in named:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **named)

    monkeypatch.setattr(os, "link", across)
    before = _placed("copy") + _placed("reflink")
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
    assert in_audio(world) == [f"{track}.flac"]
    assert _placed("copy") + _placed("reflink") == before + 1
    assert final(world, track).stat().st_nlink == 1


def _placed(how: str) -> float:
    name = "pezzottify_download_files_placed_total"
    return REGISTRY.get_sample_value(name, {"how": how}) or 0.0


async def test_delivery_over_http(world: World) -> None:
    """Files come from a file server, through a dropped connection, and its folder stays."""
    tracks = await asked(world, 3)
    async with Autoindex(world.incoming) as server:
        server.cuts = [5_000]
        over_http = {"TORRENTINO_DELIVERY": "http", "TORRENTINO_FILES_URL": server.url}
        async with stages(world, **over_http) as by_hand:
            await by_hand.until_ready()
            assert await by_hand.fetch() == 3
            assert in_audio(world) == [f"{track}.flac" for track in tracks]
            assert any("range" in headers for _, headers in server.requests)
            assert await by_hand.clean() == 3
            assert await by_hand.clean() == 0
    assert len(world.ticket_folders()) == 3
    assert parts(world) == []


async def test_a_full_disk_pauses_and_resumes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-58: below MIN_FREE_DISK_MB nothing is claimed, until there is some room more."""
    await asked(world)
    async with stages(world, MIN_FREE_DISK_MB="100") as by_hand:
        await by_hand.until_ready()
        monkeypatch.setattr(room, "room_on", lambda _: (99 * room.MIB, 500 * room.MIB))
        held = await held_by(by_hand.fetch)
        assert isinstance(held, DependencyDown)
        assert held.dependency == "space"
        assert "99 MiB free, MIN_FREE_DISK_MB wants 100" in held.detail
        assert (await one(world))["stage"] == "ready"
        monkeypatch.setattr(room, "room_on", lambda _: (163 * room.MIB, 500 * room.MIB))
        assert "continues with 164 MiB" in str(await held_by(by_hand.fetch))
        monkeypatch.setattr(room, "room_on", lambda _: (164 * room.MIB, 500 * room.MIB))
        assert await by_hand.fetch() == 1
        assert by_hand.app.health.conditions()["space"].ok


async def test_an_unmounted_media_root_pauses(world: World) -> None:
    """The mark is gone: nothing is claimed, nothing written, until it is back."""
    await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        assert await held_by(by_hand.fetcher.preconditions.check) is None
        mounted = world.media.rename(world.folder / "unmounted")
        world.media.mkdir()
        held = await held_by(by_hand.fetch)
        assert isinstance(held, DependencyDown)
        assert held.dependency == "media"
        assert list(world.media.iterdir()) == []
        assert (await one(world))["stage"] == "ready"
        world.media.rmdir()
        assert isinstance(await held_by(by_hand.fetch), DependencyDown)
        mounted.rename(world.media)
        assert await by_hand.fetch() == 1


async def test_an_incoming_folder_that_is_away_fills_no_history(world: World) -> None:
    """L-41: a mount that is not there burns nothing, is named, and is asked before claiming."""
    await asked(world)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        mounted = world.incoming.rename(world.folder / "unmounted")
        for _ in range(5):
            held = await held_by(by_hand.fetch)
            assert isinstance(held, Misconfigured)
            assert "TORRENTINO_DEST_MOUNT" in held.detail
        assert (await timeline(world)).count("fetching") <= 1
        item = await one(world)
        assert (item["stage"], item["retry_count"]) == ("ready", 0)
        mounted.rename(world.incoming)
        assert await by_hand.fetch() == 1
        assert (await one(world))["status"] == "COMPLETED"
        assert by_hand.app.health.conditions()["incoming"].ok


async def test_without_ffmpeg_nothing_is_claimed(world: World) -> None:
    """A missing program is a setting to correct, and no item's failure."""
    await asked(world)
    installed: list[AudioTools] = []

    def tools() -> AudioTools:
        if installed:
            return installed[0]
        raise Misconfigured("ffmpeg", "ffmpeg and ffprobe are not on PATH")

    async with stages(world, tools) as by_hand:
        await by_hand.until_ready()
        held = await held_by(by_hand.fetch)
        assert isinstance(held, Misconfigured)
        assert held.dependency == "ffmpeg"
        assert (await one(world))["stage"] == "ready"
        installed.append(find_tools())
        assert await by_hand.fetch() == 1
        assert by_hand.app.health.conditions()["ffmpeg"].ok


async def test_a_bug_uses_up_an_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """L-25: what breaks us every time ends in FAILED instead of coming back for ever."""
    await asked(world)

    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    async with stages(world, MAX_RETRIES="0") as by_hand:
        monkeypatch.setattr(by_hand.fetcher.recipe, "collect", broken)
        await by_hand.until_ready()
        await by_hand.fetch()
    item = await one(world)
    assert (item["status"], item["error_type"]) == ("FAILED", "unknown")
    assert "RuntimeError: a bug" in item["error_message"]


async def test_urgent_files_are_fetched_first(world: World) -> None:
    """Among ready items: by priority, then by age."""
    tracks = world.add_album(1, 6, seconds=SECONDS)
    for place, priority in enumerate((3, 2, 3, 1, 2, 3)):
        await queue(world, [tracks[place]], seconds=SECONDS, priority=priority)
    async with stages(world, FETCH_CONCURRENCY="1") as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
    rows = await world.rows(
        "SELECT q.track_id FROM events e JOIN queue_items q ON q.id = e.item_id"
        " WHERE e.stage = 'fetching' ORDER BY e.seq"
    )
    assert [row["track_id"] for row in rows] == [tracks[n] for n in (3, 1, 4, 0, 2, 5)]


async def test_one_folder_that_cannot_be_removed_keeps_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaning continues behind a folder that we may not remove, and so does fetching."""
    await asked(world, 3)
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        stuck = sorted(world.ticket_folders())[1]
        delivery = by_hand.fetcher.recipe.collector.deliveries["incoming"]
        remove = delivery.remove

        async def refuse(dest_path: str) -> bool:
            if dest_path == str(stuck):
                raise DependencyDown("incoming", "permission denied")
            return await remove(dest_path)

        monkeypatch.setattr(delivery, "remove", refuse)
        await by_hand.clean()
        assert by_hand.app.health.breaker("incoming").closed
        assert world.ticket_folders() == [stuck]


class SlowDecoder:
    """An ffmpeg that waits until the test lets it go on."""

    def __init__(self, folder: Path) -> None:
        tools = find_tools()
        folder.mkdir()
        self._gate = folder / "gate"
        os.mkfifo(self._gate)
        ffmpeg = folder / "ffmpeg"
        ffmpeg.write_text(f'#!/bin/sh\nread line < {self._gate}\nexec {tools.ffmpeg} "$@"\n')
        ffmpeg.chmod(0o755)
        self._tools = AudioTools(ffmpeg=str(ffmpeg), ffprobe=tools.ffprobe)

    def tools(self) -> AudioTools:
        """What the fetcher-writer is given."""
        return self._tools

    async def go_on(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until an ffmpeg waits, do something meanwhile, and let it go on."""

        def write() -> None:
            # Opening for writing returns when there is a reader.
            with self._gate.open("w") as gate:
                meanwhile()
                gate.write("go on\n")

        await asyncio.to_thread(write)


@pytest.fixture
def slow(tmp_path: Path) -> SlowDecoder:
    return SlowDecoder(tmp_path / "slow")


async def begin(by_hand: Stages) -> None:
    """One item is being decoded by a decoder that waits."""
    await by_hand.until_ready()
    assert await by_hand.fetcher.run_once() == 1


async def test_the_lease_is_kept_as_long_as_it_takes(world: World, slow: SlowDecoder) -> None:
    """L-49: work that takes longer than its lease is not taken over while it runs."""
    (track,) = await asked(world)
    async with stages(world, slow.tools, LEASE_S="1") as by_hand, stages(world) as other:
        await begin(by_hand)
        stop = asyncio.Event()
        keeping = asyncio.create_task(by_hand.leases.run(stop))
        claimed = await one(world)

        async def lease_left() -> float:
            await other.give_back()
            (row,) = await world.rows(
                "SELECT extract(epoch FROM lease_until - $1::timestamptz)::float AS s"
                " FROM queue_items",
                claimed["lease_until"],
            )
            return float(row["s"])

        await eventually(lease_left, lambda seconds: seconds > 1.5)
        assert await other.fetcher.run_once() == 0
        assert (await one(world))["fence"] == claimed["fence"]
        stop.set()
        await slow.go_on()
        await asyncio.gather(*by_hand.fetcher.working)
        await keeping
    assert in_audio(world) == [f"{track}.flac"]
    assert (await timeline(world)).count("fetching") == 1


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_lost_lease_ends_the_work(world: World, slow: SlowDecoder, noticed: bool) -> None:
    """L-48, fence: who has lost the item places nothing, whether it notices at once or never."""
    (track,) = await asked(world)
    async with stages(world, slow.tools) as late, stages(world) as next_:
        await begin(late)
        await eventually(lambda: one(world), lambda item: item["stage"] == "verifying")
        await world.execute("UPDATE queue_items SET lease_until = now() - interval '1 s'")
        await next_.give_back()
        assert (await one(world))["stage"] == "ready"
        if noticed:
            assert [await late.leases.run_once() for _ in range(2)] == [0, 1]
            await asyncio.gather(*late.fetcher.working, return_exceptions=True)
        else:
            await slow.go_on()
            await asyncio.gather(*late.fetcher.working)
        assert in_audio(world) == []
        assert parts(world) == []
        assert (await one(world))["stage"] == "ready"
        assert await next_.fetch() == 1
        item = await one(world)
        assert (item["status"], item["retry_count"]) == ("COMPLETED", 0)
        assert in_audio(world) == [f"{track}.flac"]
        assert len(await world.rows("SELECT 1 FROM events WHERE kind = 'audio.ready'")) == 1


async def test_the_stop_hands_back(world: World, slow: SlowDecoder) -> None:
    """L-26: cut short by the end of the grace, the item goes back and nothing is left lying."""
    await asked(world)
    async with stages(world, slow.tools) as by_hand:
        await by_hand.until_ready()
        stop = asyncio.Event()
        running = asyncio.create_task(by_hand.fetcher.run(stop))
        await eventually(lambda: one(world), lambda item: item["stage"] == "verifying")
        stop.set()
        running.cancel("stopping")
        with pytest.raises(asyncio.CancelledError):
            await running
        item = await one(world)
        assert (item["stage"], item["lease_until"], item["retry_count"]) == ("ready", None, 0)
        assert parts(world) == []
        assert in_audio(world) == []


async def test_an_old_worker_moves_nothing_aside(world: World) -> None:
    """Fence: a worker that lost its item leaves the name alone, which may have a good file now."""
    (track,) = await asked(world)
    async with stages(world) as late, stages(world) as next_:
        await late.until_ready()
        broken = cut(
            world.folder / "broken.flac", make_audio(world.folder / "x.flac", seconds=SECONDS)
        )
        final(world, track).parent.mkdir(parents=True)
        shutil.copy(broken, final(world, track))
        (work,) = await late.fetcher.store.claim(1)
        await world.execute("UPDATE queue_items SET lease_until = now() - interval '1 s'")
        await next_.give_back()
        await next_.fetch()
        shutil.copy(broken, world.folder / "again")
        (world.folder / "again").replace(final(world, track))
        await late.fetcher.fetch([work])
        assert final(world, track).exists(), "it is no longer the late worker's to judge"
        assert len(list((world.media / ".incoming" / "refused").iterdir())) == 1


async def test_a_file_that_is_written_to_meanwhile_is_refused(
    world: World, slow: SlowDecoder
) -> None:
    """A second ticket with the same path may write over what we have linked: not placed."""
    await asked(world)
    async with stages(world, slow.tools) as by_hand:
        await begin(by_hand)
        await eventually(lambda: one(world), lambda item: item["stage"] == "verifying")
        (incoming,) = world.incoming.glob("*/*/*.converted")

        def write_over() -> None:
            with incoming.open("ab") as file:
                file.write(b"x")

        await slow.go_on(write_over)
        await asyncio.gather(*by_hand.fetcher.working)
        item = await one(world)
        assert item["stage"] == "retry_wait"
        assert item["error_type"] in {"storage", "corruption"}
        assert in_audio(world) == []


async def test_zeros_that_were_placed_too_early_block_no_source(world: World) -> None:
    """Torrentino placed the file before the torrent was whole: the torrent is a good one."""
    await asked(world)
    zeros = world.folder / "zeros.flac"
    zeros.write_bytes(bytes(3 << 20))
    world.faults.substitute["song 1001"] = [zeros]
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        item = await one(world)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "storage")
        assert "all zeros" in item["error_message"]
        assert await world.rows("SELECT * FROM bad_sources") == []


async def test_a_damaged_delivery_is_asked_for_again(world: World) -> None:
    """Corruption: nothing is placed, the evidence is kept, and the retry takes a new ticket."""
    (track,) = await asked(world)
    good = make_audio(world.folder / "good.flac", seconds=SECONDS)
    bad = overwrite(world.folder / "bad.flac", good)
    world.faults.substitute["song 1001"] = [bad]
    async with stages(world) as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        item = await one(world)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "corruption")
        assert item["error_evidence"]["rule"] == "decode_errors"
        assert in_audio(world) == []
        await by_hand.until_ready()
        await by_hand.fetch()
        item = await one(world)
        assert (item["status"], item["retry_count"], item["attempt"]) == ("COMPLETED", 1, 2)
        assert (item["error_type"], item["error_evidence"]) == (None, None)
        assert len(await tickets(world)) == 2
        assert in_audio(world) == [f"{track}.flac"]
