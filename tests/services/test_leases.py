"""Leases are renewed while the work continues, and work that lost its lease is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.db.claims import Claim
from shared.db.pool import Database
from shared.leases import LeaseKeeper
from shared.states import Stage
from tests.services.test_reaper import put
from tests.support.stages import bare_world
from tests.support.world import World, eventually, track_id


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """The database is all that these tests need."""
    with bare_world(tmp_path, database_url) as made:
        yield made


async def lease_s(world: World, claim: Claim) -> float:
    (row,) = await world.rows(
        "SELECT extract(epoch FROM lease_until - now())::float AS s FROM queue_items WHERE id = $1",
        claim.item_id,
    )
    return float(row["s"])


async def test_what_is_held_is_renewed(world: World, database: Database) -> None:
    """Every held claim is renewed, in one statement; a released one is not."""
    kept = await put(world, track_id(1), Stage.FETCHING, lease_s=1)
    left = await put(world, track_id(2), Stage.FETCHING, lease_s=1)
    keeper = LeaseKeeper(database, lease_s=600)
    with keeper.holding(kept):
        with keeper.holding(left):
            pass
        assert await keeper.run_once() == 0
    assert await lease_s(world, kept) > 500
    assert await lease_s(world, left) <= 1
    assert await keeper.run_once() == 0


async def test_a_lease_that_ran_out_unnoticed_is_renewed(world: World, database: Database) -> None:
    """Until another worker takes the item, this one keeps it."""
    claim = await put(world, track_id(1), Stage.FETCHING, lease_s=-5)
    keeper = LeaseKeeper(database, lease_s=600)
    with keeper.holding(claim):
        assert await keeper.run_once() == 0
    assert await lease_s(world, claim) > 500


@pytest.mark.parametrize("how", ["fence", "given back"])
async def test_work_without_a_lease_is_cancelled(
    world: World, database: Database, how: str
) -> None:
    """L-48: work that lost its item is cancelled at the second check; other work continues."""
    lost = await put(world, track_id(1), Stage.FETCHING, lease_s=60)
    mine = await put(world, track_id(2), Stage.FETCHING, lease_s=60)
    keeper = LeaseKeeper(database, lease_s=60)
    release = asyncio.Event()

    async def work(claim: Claim) -> str:
        with keeper.holding(claim):
            await release.wait()
            return "done"

    tasks = [asyncio.create_task(work(claim)) for claim in (lost, mine)]
    await asyncio.sleep(0)
    change = (
        "fence = fence + 1"
        if how == "fence"
        else "stage = 'ready', lease_until = NULL, lease_owner = NULL"
    )
    await world.execute(f"UPDATE queue_items SET {change} WHERE id = $1", lost.item_id)
    assert [await keeper.run_once() for _ in range(2)] == [0, 1]
    with pytest.raises(asyncio.CancelledError, match="lease lost"):
        await tasks[0]
    release.set()
    assert await tasks[1] == "done"


async def test_work_that_has_just_ended_has_lost_nothing(world: World, database: Database) -> None:
    """Between its last commit and its end, work without a lease is not cancelled."""
    claim = await put(world, track_id(1), Stage.FETCHING, lease_s=60)
    keeper = LeaseKeeper(database, lease_s=60)
    committed, checked = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        with keeper.holding(claim):
            await world.execute(
                "UPDATE queue_items SET stage = 'ready', lease_until = NULL, lease_owner = NULL"
            )
            committed.set()
            await checked.wait()
        return "done"

    working = asyncio.create_task(work())
    await committed.wait()
    assert await keeper.run_once() == 0
    checked.set()
    assert await working == "done"
    assert await keeper.run_once() == 0


async def test_leases_are_kept_while_draining(world: World, database: Database) -> None:
    """After the stop, work in hand keeps its lease until it is finished."""
    claim = await put(world, track_id(1), Stage.FETCHING, lease_s=1)
    keeper = LeaseKeeper(database, lease_s=1)
    stop = asyncio.Event()
    running = asyncio.create_task(keeper.run(stop))
    with keeper.holding(claim):
        stop.set()
        before = (await world.items())[0]["lease_until"]

        async def until() -> bool:
            return bool((await world.items())[0]["lease_until"] > before)

        await eventually(until)
        await eventually(until)
        assert not running.done()
    await asyncio.wait_for(running, 5)


async def test_an_absent_database_ends_no_work(world: World) -> None:
    """A renewal that fails is tried again; the fence keeps a late one harmless."""
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    keeper = LeaseKeeper(away, lease_s=1)
    stop = asyncio.Event()
    with capture_logs() as lines, keeper.holding(Claim(item_id="x", fence=1)):
        running = asyncio.create_task(keeper.run(stop))

        async def failures() -> int:
            return len([line for line in lines if line["event"] == "leases_not_renewed"])

        await eventually(failures)
        stop.set()
        await eventually(failures, lambda count: count > 1)
        assert not running.done()
    await asyncio.wait_for(running, 15)
