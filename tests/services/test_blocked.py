"""Blocked sources: listed with their reasons, and lifted by an administrator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.audio import cut
from tests.support.direct import SERVICES, direct_world, files_of, list_release
from tests.support.ingest_helpers import V1, ask, assert_problem, serve
from tests.support.releases import make_release
from tests.support.stages import assert_lawful, one, queue, stages
from tests.support.world import Row, World, eventually


@pytest.fixture
async def direct(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with direct_world(tmp_path, database_url, "qbittorrent", decoys=False) as world:
        yield world


async def listed(api: httpx.AsyncClient, **params: str) -> list[Row]:
    items: list[Row] = (await api.get(f"{V1}/admin/blocked", params=params)).json()["items"]
    return items


async def lift(api: httpx.AsyncClient, **body: str) -> httpx.Response:
    return await api.post(f"{V1}/admin/blocked/lift", json=body)


async def test_a_lifted_torrent_is_taken_again_by_a_ticket(world: World) -> None:
    """It was blocked for its audio: the item has its next ticket at once, which keeps it."""
    [track] = world.add_album(1, 1)
    whole = next(song.path for song in world.songs)
    bad = cut(world.folder / "bad.flac", whole)
    world.faults.substitute["song 1001"] = [bad] * 9
    await queue(world, [track])
    async with stages(world, RETRY_INITIAL_S="9999") as by_hand:
        await by_hand.until_ready()
        await by_hand.fetch()
        api = await serve(world)
        [block] = await listed(api)
        [torrent] = await world.rows("SELECT info_hash FROM tickets")
        assert (block["source"], block["why"]) == (torrent["info_hash"], "wrong")
        assert block["evidence"]["rule"] in ("decode_errors", "truncated")
        assert "the damage is at" in block["reason"]
        assert await listed(api, track_id="T" + "9" * 21) == []
        world.faults.substitute.clear()
        answer = await lift(api, source=block["source"], track_id=track)
        assert answer.json() == {"lifted": [track], "failed": []}
        assert_problem(await lift(api, source=block["source"]), 404, "unknown")
        item = await one(world)
        assert "lifted the block" in item["reason"]
        due = await world.rows("SELECT 1 FROM queue_items WHERE due_at <= now() AND wait_s = 0")
        assert len(due) == 1
        shown = (await api.get(f"{V1}/items/{item['id']}")).json()["timeline"][-1]
        assert (shown["decision"], shown["by"]) == ("lifted", "admin")
        assert block["source"] in shown["reason"]
        await by_hand.ticket()
        seen = {"type": "downloading", "info_hash": block["source"], "progress_pct": 1.0}
        by_hand.set_state(await one(world), **seen)
        await by_hand.poll()
        assert (await one(world))["stage"] == "downloading", "it is not refused again"
        assert world.standin.requests["DELETE /torrents/{hash}"] == 0
        await assert_lawful(world)


async def test_a_lifted_release_is_chosen_again(direct: World) -> None:
    """The only release was blocked, and its file is mended: lifted, it is added once more."""
    album = make_release(direct, 1)
    [track] = album.ids
    whole = album.tracks[track].read_bytes()
    cut(album.tracks[track], album.tracks[track])
    spec = list_release(direct, album, files=files_of(album))
    api = await serve(direct, *SERVICES)
    await ask(api, track, "42")

    async def blocks() -> list[Row]:
        return await listed(api)

    [block] = await eventually(blocks, lambda found: len(found) == 1)
    assert (block["info_hash"], block["why"]) == (spec.info_hash, "wrong")
    await eventually(direct.items, lambda items: items[0]["stage"] == "retry_wait")
    album.tracks[track].write_bytes(whole)
    assert (await lift(api, source=block["source"])).json()["lifted"] == [track]
    [item] = await direct.until_ended(1)
    assert item["status"] == "COMPLETED", item["error_message"]
    assert direct.standin.requests["POST /torrents/add/url"] >= 1
    assert await listed(api) == []


async def test_only_the_named_track_is_lifted(world: World) -> None:
    """One torrent may be right for one track, and wrong for another."""
    tracks = world.add_album(1, 2)
    for track in tracks:
        await world.execute(
            "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
            " VALUES ($1, 'h', 'was broken', 'before')",
            track,
        )
        await world.execute(
            "INSERT INTO blocklist (track_id, release_key, info_hash, why, reason, item_id)"
            " VALUES ($1, 'a title|5', 'h', 'wrong', 'was broken', 'before')",
            track,
        )
    api = await serve(world)
    assert {(each["track_id"], each["source"]) for each in await listed(api)} == {
        (track, "h") for track in tracks
    }
    answer = await lift(api, source="a title|5", track_id=tracks[0])
    assert answer.json()["lifted"] == [tracks[0]]
    assert [each["track_id"] for each in await listed(api)] == [tracks[1]]
    assert (await lift(api, source="h")).json()["lifted"] == [tracks[1]]
    assert await listed(api) == []
    assert await world.rows("SELECT 1 FROM blocklist") == []
    for body in ({}, {"source": ""}, {"source": "h", "track_id": "/"}):
        assert_problem(await lift(api, **body), 422, "invalid-request")
