"""Several copies of every worker at once: each piece of work is done once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from services.local.torrentino import StandinConfig
from tests.e2e.test_corruption import Observer
from tests.support.stages import assert_lawful, queue
from tests.support.world import World, eventually, make_world

COUNT, LIMIT = 30, 7


async def test_no_item_is_ticketed_or_fetched_twice(tmp_path: Path, database_url: str) -> None:
    """Two ticketers, two pollers, three fetcher-writers, 30 items: one of everything for each."""
    config = StandinConfig(acquire_s=0.0, download_s=0.05, convert_s=0.0, place_s=0.01, tick_s=0.01)
    async with make_world(tmp_path, database_url, config) as world:
        tracks = world.add_album(1, COUNT, seconds=2)
        request = await queue(world, tracks, seconds=2, kind="album", content_id="album-1")
        limit = {"MAX_TICKETS_IN_FLIGHT": str(LIMIT)}
        with Observer(world.media, world.folder / "observed") as observer:
            most = [0]
            watching = asyncio.create_task(_watch(world, most))
            for _ in range(2):
                await world.run("ticketer", **limit)
                await world.run("poller")
            for _ in range(3):
                await world.run("fetcher_writer", FETCH_CONCURRENCY="2")
            await world.run("reaper")
            items = await world.until_ended(COUNT, within_s=100)
            watching.cancel()
        assert {item["status"] for item in items} == {"COMPLETED"}
        assert {(item["attempt"], item["retry_count"]) for item in items} == {(1, 0)}
        assert world.standin.requests["POST /tickets"] == COUNT
        assert 0 < most[0] <= LIMIT
        assert set(world.files()) == set(tracks)
        ready = await eventually(
            lambda: world.events("audio.ready.*"), lambda events: len(events) >= COUNT
        )
        assert Counter(e["body"]["track_id"] for e in ready) == Counter(tracks)
        moves = await world.rows(
            "SELECT item_id, stage, count(*) AS n FROM events WHERE kind = 'item' GROUP BY 1, 2"
        )
        assert {row["n"] for row in moves} == {1}, "no stage was gone through twice"
        done = await world.events("album.completed.*")
        assert [event["body"]["request_ids"] for event in done] == [[request]]
        assert (done[0]["body"]["completed"], done[0]["body"]["failed"]) == (COUNT, 0)
        hashes = {
            row["track_id"]: row["sha256"] for row in await world.rows("SELECT * FROM media_files")
        }
        assert observer.seen == {path: hashes[path.stem] for path in observer.seen}
        assert world.live_tickets() == []

        async def left() -> list[Path]:
            return [*world.ticket_folders(), *(world.media / ".incoming").glob("*.part")]

        await eventually(left, lambda paths: not paths)
        await assert_lawful(world)


async def _watch(world: World, most: list[int]) -> None:
    """Note the most tickets that were ever alive at once."""
    while True:
        most[0] = max(most[0], len(world.live_tickets()))
        await asyncio.sleep(0.002)
