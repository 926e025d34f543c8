"""A torrent that gave broken audio for a track is blocked, and another one is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.local.torrentino import StandinConfig
from tests.services.test_ingest_cancel import queued
from tests.services.test_ingest_retry import retry
from tests.support.audio import cut, make_audio
from tests.support.ingest_helpers import serve
from tests.support.stages import Stages, assert_lawful, one, queue, stages, tickets
from tests.support.world import Row, World, eventually, make_world

HASHES = [letter * 40 for letter in "abc"]


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """Downloads take long enough to be seen: what was downloaded unseen cannot be blocked."""
    config = StandinConfig(acquire_s=0.0, download_s=1.0, tick_s=0.05)
    async with make_world(tmp_path, database_url, config) as made:
        made.env["POLL_INTERVAL_S"] = "0.05"
        yield made


@pytest.fixture
def bad(world: World) -> Path:
    """A file that is cut short."""
    whole = make_audio(world.folder / "whole.mp3", seconds=8, codec="mp3")
    return cut(world.folder / "bad.mp3", whole)


async def blocked(world: World) -> list[Row]:
    """What is blocked, oldest first."""
    return await world.rows("SELECT * FROM bad_sources ORDER BY at")


async def test_a_broken_source_is_refused_and_the_next_one_serves(world: World, bad: Path) -> None:
    """The best candidate is broken: it is downloaded once, then refused in favour of the second,
    which arrives, although Torrentino's search always prefers the first."""
    [track] = world.add_album(1, 1)
    world.faults.spoiled["song 1001"] = bad
    await queue(world, [track])
    await world.run("ticketer", "poller", "fetcher_writer")
    [item] = await world.until_ended(1)
    assert item["status"] == "COMPLETED", item["error_message"]
    assert (item["attempt"], item["retry_count"]) == (2, 1)
    assert list(world.files()) == [track]
    [source] = await blocked(world)
    assert (source["track_id"], source["item_id"]) == (track, item["id"])
    assert source["reason"]
    assert len(world.standin.tickets()) == 2
    assert world.standin.requests["DELETE /torrents/{hash}"] >= 1
    await assert_lawful(world)


async def test_only_broken_sources_end_soon(world: World, bad: Path) -> None:
    """Both candidates are broken: each is downloaded once; then three tickets that offer nothing
    else are withdrawn before they download, and the item fails as not found, with the hashes."""
    [track] = world.add_album(1, 1)
    world.faults.substitute["song 1001"] = [bad] * 9
    await queue(world, [track])
    await world.run("ticketer", "poller", "fetcher_writer")
    [item] = await world.until_ended(1)
    sources = await blocked(world)
    assert len(sources) == 2, item
    assert (item["status"], item["error_type"]) == ("FAILED", "not_found")
    assert item["error_evidence"] == {"blocked": sorted(row["info_hash"] for row in sources)}
    assert item["error_message"].startswith("2 torrents tried: two end at 0:0"), item
    assert item["retry_count"] == 3
    verified = await world.rows("SELECT 1 FROM events WHERE stage = 'verifying'")
    assert len(verified) == 2
    await eventually(lambda: _closed(world))
    assert world.live_tickets() == []
    await assert_lawful(world)


async def _closed(world: World) -> bool:
    return {row["state"] for row in await tickets(world)} == {"closed"}


async def _waits_with(still: World, by_hand: Stages, *blocked: str) -> Row:
    """An item with a ticket, and blocked sources of its track."""
    [track] = still.add_album(1, 1)
    await queue(still, [track])
    await by_hand.ticket()
    item = (await still.items())[-1]
    for each in blocked:
        await still.execute(
            "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
            " VALUES ($1, $2, 'was broken', 'before')",
            track,
            each,
        )
    return item


def candidates(*hashes: str) -> list[dict[str, object]]:
    return [{"title": "A torrent", "info_hash": each, "size_bytes": 5} for each in hashes]


async def test_a_completed_ticket_of_a_blocked_source_is_not_collected(
    still: World, by_hand: Stages
) -> None:
    """It was faster than the refusal: the attempt is over, and its folder is removed unread."""
    item = await _waits_with(still, by_hand, HASHES[0])
    await still.execute("UPDATE tickets SET info_hash = $1", HASHES[0])
    by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    await by_hand.poll()
    item = await one(still)
    assert (item["stage"], item["error_type"]) == ("retry_wait", "not_found")
    assert item["error_evidence"] == {"blocked": [HASHES[0]]}
    assert await by_hand.fetch() == 0
    [ticket] = await tickets(still)
    assert ticket["state"] == "closed"


async def test_what_follows_a_refused_source_is_collected(still: World, by_hand: Stages) -> None:
    """After the refusal the ticket is on another torrent, also when that one was never seen."""
    item = await _waits_with(still, by_hand, HASHES[0])
    both = candidates(HASHES[0], HASHES[1])
    by_hand.set_state(
        item, type="downloading", info_hash=HASHES[0], progress_pct=1.0, candidates=both
    )
    await by_hand.poll()
    assert still.standin.requests["DELETE /torrents/{hash}"] >= 1
    assert (await one(still))["stage"] == "searching"
    by_hand.set_state(item, type="completed", stats={"files_placed": 1})
    await by_hand.poll()
    assert (await one(still))["stage"] == "ready"


async def test_what_nothing_decodes_gives_way_before_it_is_downloaded(
    still: World, by_hand: Stages
) -> None:
    """Torrentino chose OptimFROG: it continues with the next candidate; without one it is over."""
    item = await _waits_with(still, by_hand)
    bad, good = candidates(HASHES[0], HASHES[1])
    bad["title"] = "The Testers - Song 1001 [OptimFROG]"
    state = {"type": "downloading", "info_hash": HASHES[0], "progress_pct": 1.0}
    by_hand.set_state(item, **state, candidates=[bad, good])
    await by_hand.poll()
    assert still.standin.requests["DELETE /torrents/{hash}"] >= 1
    assert (await one(still))["stage"] == "searching"
    by_hand.set_state(item, **state, candidates=[bad])
    await by_hand.poll()
    ended = await one(still)
    assert (ended["stage"], ended["error_type"]) == ("retry_wait", "not_found")
    assert ended["error_evidence"] == {"blocked": [HASHES[0]]}


@pytest.mark.parametrize("broken", [True, False])
async def test_a_torrent_that_another_ticket_needs_is_not_removed(
    still: World, by_hand: Stages, broken: bool
) -> None:
    """Two tracks from one torrent, broken for one of them: that one's ticket is withdrawn; the
    torrent is removed when the other one's file is broken, too, and otherwise never."""
    [other] = still.add_album(2, 1)
    await queue(still, [other], priority=3)
    await by_hand.ticket()
    both = candidates(HASHES[0], HASHES[1])
    downloading = {"type": "downloading", "info_hash": HASHES[0], "candidates": both}
    by_hand.set_state(await one(still), **downloading)
    await by_hand.poll()
    item = await _waits_with(still, by_hand, HASHES[0])
    by_hand.set_state(item, **downloading)
    await by_hand.poll()
    second, first = await still.items()
    assert first["id"] == item["id"]
    assert (first["stage"], first["error_type"]) == ("retry_wait", "not_found")
    assert second["stage"] == "downloading"
    await by_hand.poll()
    assert still.standin.requests["DELETE /tickets/{id}"] == 1
    assert still.standin.requests["DELETE /torrents/{hash}"] == 0, "the other needs it"
    by_hand.set_state(second, type="completed", stats={"files_placed": 1})
    await by_hand.poll()
    await by_hand.poll()
    assert still.standin.requests["DELETE /torrents/{hash}"] == 0, "it is being collected from"
    await _end(still, second, "failed" if broken else "completed")
    await by_hand.poll()
    removed = still.standin.requests["DELETE /torrents/{hash}"]
    assert removed == (1 if broken else 0), "no item needs it any more, or it continues to seed"
    assert await still.rows("SELECT 1 FROM bad_sources WHERE removed_at IS NULL") == []


async def _end(still: World, item: Row, stage: str) -> None:
    """As when its file was fetched."""
    await still.execute(
        "UPDATE queue_items SET stage = $2, status = upper($2), completed_at = 1 WHERE id = $1",
        item["id"],
        stage,
    )


async def test_a_torrent_that_only_lacks_a_track_is_left_alone(
    still: World, by_hand: Stages
) -> None:
    """It is not taken for that track again, and continues to seed for all others."""
    item = await _waits_with(still, by_hand, HASHES[0])
    await still.execute("UPDATE bad_sources SET lacks = true")
    both = candidates(HASHES[0], HASHES[1])
    by_hand.set_state(item, type="downloading", info_hash=HASHES[0], candidates=both)
    await by_hand.poll()
    item = await one(still)
    assert (item["stage"], item["error_type"]) == ("retry_wait", "not_found")
    assert item["error_message"].startswith("1 torrent tried: lacks the track; "), item
    assert "approve another candidate" in item["error_message"]
    await by_hand.poll()
    assert still.standin.requests["DELETE /tickets/{id}"] == 1
    assert still.standin.requests["DELETE /torrents/{hash}"] == 0


async def test_a_torrent_that_serves_one_of_its_items_is_not_refused(
    still: World, by_hand: Stages
) -> None:
    """Blocked for one track of an album's ticket, it may still be right for the others."""
    await queue(still, still.add_album(1, 2), album=1)
    await still.execute(
        "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
        " SELECT min(track_id), $1, 'was broken', 'before' FROM queue_items",
        HASHES[0],
    )
    async with stages(still, TICKET_GROUPING="auto") as albums:
        await albums.ticket()
        first, _ = await still.items()
        downloading = {"type": "downloading", "info_hash": HASHES[0], "progress_pct": 1.0}
        albums.set_state(first, **downloading)
        await albums.poll()
        assert {item["stage"] for item in await still.items()} == {"downloading"}
        await still.execute(
            "INSERT INTO bad_sources (track_id, info_hash, reason, item_id, lacks)"
            " SELECT max(track_id), $1, 'lacks it', 'before', true FROM queue_items",
            HASHES[0],
        )
        await albums.poll()
        assert {item["stage"] for item in await still.items()} == {"retry_wait"}


async def test_an_administrators_retry_gives_all_sources_another_chance(world: World) -> None:
    """A person knows more than a hash: the blocks of the track go; a user's retry leaves them."""
    tracks = world.add_album(1, 2)
    api = await serve(world)
    items = [await queued(api, track, "A") for track in tracks]
    for track in tracks:
        await world.execute(
            "INSERT INTO bad_sources (track_id, info_hash, reason, item_id)"
            " VALUES ($1, 'a', 'was broken', 'before')",
            track,
        )
    await world.execute(
        "UPDATE queue_items SET stage = 'failed', status = 'FAILED', completed_at = 1"
    )
    await retry(api, items[0])
    await retry(api, items[1], "A")
    assert [row["track_id"] for row in await blocked(world)] == [tracks[1]]
