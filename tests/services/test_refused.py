"""Refused downloads: kept, listed, released by an administrator, and swept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import ffmpeg
import httpx
import pytest

from shared.media.paths import audio_uri
from shared.media.tools import find_tools
from tests.support.audio import cut, make_audio
from tests.support.direct import (
    SERVICES,
    direct_world,
    downloads,
    list_release,
)
from tests.support.ingest_helpers import V1, ask, assert_problem, serve
from tests.support.invariants import sweep
from tests.support.releases import make_release
from tests.support.stages import (
    Stages,
    assert_lawful,
    in_audio,
    one,
    queue,
    stages,
    timeline,
)
from tests.support.world import Row, World, as_user, eventually

SECONDS = 10.0
LONGER = 12.5


async def refused(world: World, by_hand: Stages, bad: Path) -> str:
    """A track whose only download was refused; the track's id."""
    [track] = world.add_album(1, 1, seconds=SECONDS)
    world.faults.substitute["song 1001"] = [bad] * 9
    await queue(world, [track], seconds=SECONDS)
    await by_hand.until_ready()
    await by_hand.fetch()
    return track


@pytest.fixture
def longer(world: World) -> Path:
    """A file that is a quarter longer than its track."""
    return make_audio(world.folder / "longer.flac", seconds=LONGER)


def kept(world: World) -> list[Path]:
    """The files that are kept."""
    return sorted((world.media / ".incoming" / "kept").glob("*"))


async def listed(api: httpx.AsyncClient) -> list[Row]:
    items: list[Row] = (await api.get(f"{V1}/admin/refused")).json()["items"]
    return items


async def release(api: httpx.AsyncClient, file_id: str) -> httpx.Response:
    return await api.post(f"{V1}/admin/refused/{file_id}/release")


async def test_a_refused_file_is_kept_and_says_why(world: World, longer: Path) -> None:
    """By the file itself, without a copy; the item and the list have the numbers."""
    async with stages(world, DURATION_TOLERANCE_S="2") as by_hand:
        track = await refused(world, by_hand, longer)
        [file] = kept(world)
        assert file.read_bytes() == longer.read_bytes()
        item = await one(world)
        assert (item["stage"], item["error_type"]) == ("retry_wait", "corruption")
        for text in ("12.5 s", "10.0 s", "differ by 2.5 s", "DURATION_TOLERANCE_S", "release"):
            assert text in item["error_message"], item["error_message"]
        assert item["reason"] == item["error_message"]
        api = await serve(world)
        [shown] = await listed(api)
        assert (shown["id"], shown["track_id"], shown["state"]) == (file.name, track, "kept")
        assert (shown["rule"], shown["evidence"]["setting_s"]) == ("wrong_length", 2.0)
        assert shown["kept_until"] - shown["kept_at"] == 14 * 86_400
        stats = (await api.get(f"{V1}/admin/stats")).json()
        assert stats["refused_files"] == {"count": 1, "bytes": file.stat().st_size}


async def test_a_released_file_is_placed_and_stays_whole(world: World, longer: Path) -> None:
    """Its verdict does not count, also after a restart, and also when the track comes again."""
    over = {"DURATION_TOLERANCE_S": "2"}
    async with stages(world, **over) as by_hand:
        track = await refused(world, by_hand, longer)
        api = await serve(world, **over)
        [file] = await listed(api)
        answer = await release(api, file["id"])
        assert answer.status_code == 200, answer.text
        assert answer.json()["item"]["stage"] == "ready"
        assert (await listed(api))[0]["state"] == "released"
    async with stages(world, **over) as by_hand:
        await by_hand.sweep()
        assert await by_hand.fetch() == 1
        item = await one(world)
        assert item["status"] == "COMPLETED", item["error_message"]
        assert in_audio(world) == [f"{track}.flac"]
        assert kept(world) == []
        assert await listed(api) == []
        [row] = await world.rows("SELECT released_by, duration_ms FROM media_files")
        assert row == {"released_by": "admin", "duration_ms": int(LONGER * 1000)}
        moves = (await api.get(f"{V1}/items/{item['id']}")).json()["timeline"]
        assert any("administrator admin released" in each["reason"] for each in moves)
        assert (await timeline(world))[-4:] == ["ready", "fetching", "verifying", "completed"]
        again = await ask(api, track)
        assert (again.status_code, again.json()["available"]) == (200, True)
        # As when two requests meet: an item for a track that has its file.
        await world.execute("DELETE FROM bad_sources")
        await queue(world, [track], seconds=SECONDS)
        await by_hand.until_ready()
        await by_hand.fetch()
        assert {each["status"] for each in await world.items()} == {"COMPLETED"}
        assert (world.media / audio_uri(track, "flac")).read_bytes() == longer.read_bytes()
        [row] = await world.rows("SELECT released_by FROM media_files")
        assert row["released_by"] == "admin"
        await assert_lawful(world)


async def test_a_damaged_file_can_be_released(world: World) -> None:
    """The list has where the damage is; what cannot be converted is placed as it is."""
    whole = make_audio(world.folder / "whole.flac", seconds=SECONDS)
    bad = cut(world.folder / "bad.flac", whole)
    async with stages(world, AUDIO_FORMAT="mp3") as by_hand:
        track = await refused(world, by_hand, bad)
        api = await serve(world)
        [file] = await listed(api)
        assert "the damage is at 0:0" in file["reason"]
        await release(api, file["id"])
        await by_hand.fetch()
        item = await one(world)
        assert item["status"] == "COMPLETED", item["reason"]
        assert (world.media / audio_uri(track, "flac")).read_bytes() == bad.read_bytes()


async def test_two_administrators_release_one_file(world: World, longer: Path) -> None:
    """One does; the other one hears who has."""
    async with stages(world, DURATION_TOLERANCE_S="2") as by_hand:
        await refused(world, by_hand, longer)
        api = await serve(world)
        [file] = await listed(api)
        both = await asyncio.gather(*(release(api, file["id"]) for _ in range(2)))
        assert sorted(each.status_code for each in both) == [200, 409]
        discarding = await api.delete(f"{V1}/admin/refused/{file['id']}")
        assert_problem(discarding, 409, "conflict")
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"
        assert_problem(await release(api, file["id"]), 404, "unknown")


async def test_users_decide_nothing(world: World) -> None:
    """Neither lists, releases, discards nor lifts."""
    api = await serve(world)
    user, path = as_user("42"), f"{V1}/admin/refused"
    for answer in (
        await api.get(path, headers=user),
        await api.post(f"{path}/a-file/release", headers=user),
        await api.delete(f"{path}/a-file", headers=user),
        await api.get(f"{V1}/admin/blocked", headers=user),
        await api.post(f"{V1}/admin/blocked/lift", json={"source": "x"}, headers=user),
    ):
        assert_problem(answer, 403, "not-allowed")


async def test_what_another_download_brought_is_not_replaced(world: World, longer: Path) -> None:
    """Completed meanwhile: a refused file cannot be released, only discarded, with a record."""
    over = {"DURATION_TOLERANCE_S": "2", "RETRY_INITIAL_S": "0.01"}
    async with stages(world, **over) as by_hand:
        track = await refused(world, by_hand, longer)
        world.faults.substitute.clear()
        await by_hand.until_ready()
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"
        api = await serve(world)
        [file] = await listed(api)
        answer = await release(api, file["id"])
        assert_problem(answer, 409, "conflict")
        assert "has its file by now" in answer.json()["detail"]
        assert (await api.delete(f"{V1}/admin/refused/{file['id']}")).status_code == 200
        assert await listed(api) == []
        item = (await api.get(f"{V1}/items/{(await one(world))['id']}")).json()
        last = item["timeline"][-1]
        assert (last["decision"], last["by"]) == ("discarded", "admin")
        assert in_audio(world) == [f"{track}.flac"]


async def test_a_cancelled_item_takes_no_file(world: World, longer: Path) -> None:
    """Before the release it is refused; after it, the file is kept; a new request can take it."""
    async with stages(world, DURATION_TOLERANCE_S="2") as by_hand:
        track = await refused(world, by_hand, longer)
        api = await serve(world, DURATION_TOLERANCE_S="2")
        [file] = await listed(api)
        item_id = (await one(world))["id"]
        await release(api, file["id"])
        await api.delete(f"{V1}/items/{item_id}", params={"for_all": "true"})
        assert await by_hand.fetch() == 0
        [shown] = await listed(api)
        assert shown["state"] == "kept"
        assert_problem(await release(api, file["id"]), 409, "conflict")
        new = (await ask(api, track)).json()["item"]["id"]
        answer = await release(api, file["id"])
        assert answer.json()["item"]["id"] == new
        await by_hand.fetch()
        assert (await api.get(f"{V1}/items/{new}")).json()["status"] == "COMPLETED"
        assert in_audio(world) == [f"{track}.flac"]


async def test_a_file_that_is_gone_sends_its_item_on(world: World, longer: Path) -> None:
    """It is searched for again, without an attempt; the row goes."""
    async with stages(world, DURATION_TOLERANCE_S="2") as by_hand:
        await refused(world, by_hand, longer)
        api = await serve(world)
        [file] = await listed(api)
        before = (await one(world))["retry_count"]
        await release(api, file["id"])
        kept(world)[0].unlink()
        await by_hand.fetch()
        item = await one(world)
        assert (item["stage"], item["retry_count"]) == ("queued", before)
        assert "gone" in item["reason"]
        assert await listed(api) == []


async def test_a_release_ends_the_download_that_follows(world: World, longer: Path) -> None:
    """The item has another ticket by then: that one is withdrawn."""
    over = {"DURATION_TOLERANCE_S": "2", "RETRY_INITIAL_S": "0.01"}
    async with stages(world, **over) as by_hand:
        await refused(world, by_hand, longer)
        await by_hand.ticket()
        assert (await one(world))["stage"] == "searching"
        api = await serve(world)
        [file] = await listed(api)
        assert (await release(api, file["id"])).status_code == 200
        states = await world.rows("SELECT state FROM tickets ORDER BY intended_at")
        assert [row["state"] for row in states] == ["closed", "withdrawing"]
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"


_THREE = """
INSERT INTO refused_files (id, track_id, item_id, ticket_id, file, rule, reason, evidence,
                           size_bytes, kept_at)
SELECT r.id, track_id, item_id, ticket_id, 'f', rule, reason, evidence, r.size,
       now() - make_interval(days => r.days)
  FROM refused_files,
       unnest($1::text[], $2::bigint[], $3::int[]) AS r (id, size, days)
"""


async def test_the_sweep_keeps_to_age_and_size(world: World, longer: Path) -> None:
    """The oldest go first, files without a record after a while, and nothing that is not ours."""
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
    over = {"DURATION_TOLERANCE_S": "2", "REFUSED_KEEP_GB": "0.01"}
    async with stages(world, **over) as by_hand:
        await refused(world, by_hand, longer)
        [first] = kept(world)
        for each in ids:
            (first.parent / each).write_bytes(b"x")
        foreign = first.parent / "notes.txt"
        foreign.write_text("not ours")
        await world.execute(_THREE, ids[:3], [6_000_000, 6_000_000, 10], [1, 2, 15])
        await by_hand.sweep()
        rows = await world.rows("SELECT id FROM refused_files ORDER BY kept_at DESC")
        assert [row["id"] for row in rows] == [first.name, ids[0]]
        assert len(kept(world)) == 6, "what was moved there just now may not be recorded yet"
        await sweep(world)
        assert {path.name for path in kept(world)} == {first.name, ids[0], "notes.txt"}


async def test_nothing_is_kept_with_zero(world: World, longer: Path) -> None:
    """Then the last words offer no release."""
    async with stages(world, DURATION_TOLERANCE_S="2", REFUSED_KEEP_DAYS="0") as by_hand:
        await refused(world, by_hand, longer)
        item = await one(world)
        assert item["stage"] == "retry_wait"
        assert "release" not in item["error_message"]
        assert kept(world) == []
        assert await world.rows("SELECT 1 FROM refused_files") == []


@pytest.fixture
async def direct(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with direct_world(tmp_path, database_url, "qbittorrent", decoys=False) as made:
        yield made


async def test_a_torrents_file_is_kept_by_a_link(direct: World) -> None:
    """Not by a second copy; the release places that file, and the torrent keeps it and seeds."""
    album = make_release(direct, 1)
    [track] = album.ids
    make_audio(album.tracks[track], seconds=LONGER, frequency=300)
    spec = list_release(direct, album)
    api = await serve(direct, *SERVICES, DOWNLOAD_CLEANUP="keep")
    await ask(api, track, "42")
    [file] = await eventually(lambda: listed(api), lambda found: len(found) == 1)
    [item] = await eventually(direct.items, lambda items: items[0]["stage"] == "retry_wait")
    assert "1 refused file is kept, and can be released" in item["error_message"]
    for text in ("called so", "is 12.5 s long, the track 4.5 s"):
        assert text in file["reason"], file["reason"]
    assert (file["info_hash"], file["rule"]) == (spec.info_hash, "lacks_track")
    [path] = kept(direct)
    [original] = list(direct.downloads.rglob("*.flac"))
    assert original.samefile(path)
    assert (await release(api, file["id"])).status_code == 200
    [item] = await direct.until_ended(1)
    assert item["status"] == "COMPLETED", item["reason"]
    assert direct.files()[track].read_bytes() == album.tracks[track].read_bytes()
    brought = {row["brought"] for row in await downloads(direct) if row["info_hash"]}
    assert brought == {True}, "it is not removed as one that proved wrong"


async def test_a_format_that_is_not_taken_is_released_as_flac(world: World) -> None:
    """Of a file with two audio streams the first one."""
    single = make_audio(world.folder / "one.m4a", seconds=SECONDS, codec="aac")
    two = world.folder / "two.m4a"
    streams = [ffmpeg.input(str(single))["a"] for _ in range(2)]
    both = ffmpeg.output(*streams, str(two), c="copy", f="ipod")
    await asyncio.to_thread(ffmpeg.run, both, cmd=find_tools().ffmpeg, quiet=True)
    async with stages(world) as by_hand:
        track = await refused(world, by_hand, two)
        api = await serve(world)
        [file] = await listed(api)
        assert file["rule"] == "several_streams"
        assert "a file with one audio stream would be accepted" in file["reason"]
        await release(api, file["id"])
        await by_hand.fetch()
        assert (await one(world))["status"] == "COMPLETED"
        assert in_audio(world) == [f"{track}.flac"]
        [row] = await world.rows("SELECT codec, duration_ms FROM media_files")
        assert row["codec"] == "flac"
        assert abs(row["duration_ms"] - SECONDS * 1000) < 100
