"""Ends of attempts and of items: budgets, finality, and albums that end once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.backoff import RetryPolicy
from shared.db import moves
from shared.db.claims import Claim
from shared.db.ledger import complete
from shared.db.pool import Connection, Database
from shared.errors import AttemptFailed, ErrorType
from shared.states import ACTIVE_STATUSES, LEASED, Stage
from tests.services.test_reaper import FACTS, put
from tests.support.stages import BY_TEST, assert_lawful, bare_world, one, queue
from tests.support.world import Row, World, album_id, eventually, track_id

POLICY = RetryPolicy(
    max_retries=8, initial_s=60, multiplier=2.5, max_s=86_400, rng=random.Random(3)
)
REMOTE = [Stage.SEARCHING]


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """The database is all that these tests need."""
    with bare_world(tmp_path, database_url) as made:
        yield made


async def fail(
    database: Database, item_id: str, cause: ErrorType = ErrorType.STORAGE, fence: int | None = None
) -> Stage | None:
    async with database.transaction() as connection:
        ended = await moves.fail(
            connection,
            [item_id if fence is None else Claim(item_id=item_id, fence=fence)],
            AttemptFailed(cause, "it broke", {"rule": "a rule"}),
            stages=REMOTE,
            policy=POLICY,
            actor="a test",
        )
    return ended.get(item_id)


async def to_remote(world: World) -> None:
    """As if the next ticket had been made."""
    await world.execute(
        "UPDATE queue_items SET stage = 'searching', status = 'DOWNLOADING', actor = $1", BY_TEST
    )


@pytest.mark.parametrize(
    ("cause", "retries"),
    [
        (ErrorType.STORAGE, 8),
        (ErrorType.NOT_FOUND, 3),
        (ErrorType.CANCELLED, 2),
        (ErrorType.REJECTED, 0),
    ],
)
async def test_attempts_are_bounded_by_cause(
    world: World, database: Database, cause: ErrorType, retries: int
) -> None:
    """The waits grow, the budget ends, and then the item has FAILED, with the reason kept."""
    claim = await put(world, track_id(1), Stage.SEARCHING)
    for retry in range(retries):
        assert await fail(database, claim.item_id, cause) is Stage.RETRY_WAIT
        (row,) = await world.rows(
            "SELECT *, extract(epoch FROM due_at - updated_at)::float AS wait_s FROM queue_items"
        )
        longest = min(60 * 2.5**retry, 86_400)
        assert 0.8 * longest <= row["wait_s"] <= longest
        assert (row["retry_count"], row["error_type"]) == (retry + 1, cause)
        assert row["error_evidence"] == {"rule": "a rule"}
        assert row["fence"] != claim.fence
        await to_remote(world)
    assert await fail(database, claim.item_id, cause) is Stage.FAILED
    item = await one(world)
    assert (item["status"], item["retry_count"]) == ("FAILED", retries)
    assert item["completed_at"] is not None
    assert item["error_message"] == "it broke"
    assert await fail(database, claim.item_id, cause) is None, "it has ended"
    await assert_lawful(world)


@pytest.mark.parametrize("stage", [Stage.COMPLETED, Stage.FAILED, Stage.RETRY_WAIT, Stage.READY])
async def test_a_late_failure_changes_nothing(
    world: World, database: Database, stage: Stage
) -> None:
    """L-03, L-48: a failure of an attempt that is over is dropped, whatever the item does now."""
    claim = await put(world, track_id(1), stage)
    before = await one(world)
    assert await fail(database, claim.item_id) is None
    assert await one(world) == before


async def test_a_failure_under_an_old_fence_changes_nothing(
    world: World, database: Database
) -> None:
    """L-48: the same stage, but another attempt."""
    claim = await put(world, track_id(1), Stage.SEARCHING)
    assert await fail(database, claim.item_id, fence=claim.fence - 1) is None
    assert (await one(world))["stage"] == "searching"


@pytest.mark.parametrize("stage", [s for s in Stage if s not in {Stage.COMPLETED, Stage.FAILED}])
async def test_only_what_the_table_allows_is_completed(
    world: World, database: Database, stage: Stage
) -> None:
    """`complete` takes its guard from the table, and writes ledger and event with it."""
    leased = stage in LEASED
    claim = await put(world, track_id(1), stage, lease_s=60 if leased else None)
    async with database.transaction() as connection:
        done = await complete(
            connection, claim.item_id, FACTS, fence=claim.fence, reason="x", actor="a test"
        )
    allowed = {Stage.QUEUED, Stage.RETRY_WAIT, *LEASED} - {Stage.TICKETING}
    assert done is (stage in allowed)
    assert len(await world.rows("SELECT 1 FROM media_files")) == int(done)
    assert len(await world.rows("SELECT 1 FROM events WHERE kind = 'audio.ready'")) == int(done)
    await assert_lawful(world)


@pytest.mark.parametrize("stage", sorted(set(Stage) - LEASED))
async def test_only_what_is_held_is_handed_back(
    world: World, database: Database, stage: Stage
) -> None:
    """A worker that does not know whether its last write was committed cannot undo it."""
    claim = await put(world, track_id(1), stage)
    before = await one(world)
    async with database.transaction() as connection:
        for target in (Stage.QUEUED, Stage.READY):
            assert not await moves.hand_back(
                connection, [claim], target, delay_s=0, reason="x", actor="a test"
            )
    assert await one(world) == before


async def album(world: World, count: int) -> list[Row]:
    """An album request whose items all wait for their ticket."""
    await queue(world, [track_id(n) for n in range(count)], kind="album", content_id=album_id(1))
    await world.execute(
        "INSERT INTO tickets (id, dest_path, priority) SELECT id, id, 0 FROM queue_items"
    )
    await world.execute("UPDATE queue_items SET ticket_id = id")
    await to_remote(world)
    return await world.items()


async def album_events(world: World) -> list[Row]:
    return await world.rows("SELECT data FROM events WHERE kind = 'album.completed'")


@pytest.mark.parametrize("turn", range(4))
async def test_an_album_ends_once_though_its_last_items_end_together(
    world: World, database: Database, turn: int
) -> None:
    """L-06, L-07: the last items end at the same moment in any order: one event, never none."""
    items = await album(world, 6)
    assert len({item["id"] for item in items}) == 6
    order = random.Random(turn).sample(items, 6)
    await asyncio.gather(*(fail(database, item["id"], ErrorType.REJECTED) for item in order))
    (event,) = await album_events(world)
    assert (event["data"]["completed"], event["data"]["failed"]) == (0, 6)
    assert event["data"]["album_id"] == album_id(1)


async def test_the_last_two_wait_for_each_other(world: World, database: Database) -> None:
    """L-06: two transactions that cannot see each other's end; the second one counts both."""
    first, second = await album(world, 2)
    async with database.transaction() as one_:
        assert await _reject(one_, first["id"]) is Stage.FAILED
        other = asyncio.create_task(fail(database, second["id"], ErrorType.REJECTED))
        await eventually(lambda: _waiting(world))
        assert not other.done()
    assert await other is Stage.FAILED
    assert len(await album_events(world)) == 1


async def _reject(connection: Connection, item_id: str) -> Stage | None:
    ended = await moves.fail(
        connection,
        [item_id],
        AttemptFailed(ErrorType.REJECTED, "no"),
        stages=REMOTE,
        policy=POLICY,
        actor="a test",
    )
    return ended.get(item_id)


async def _waiting(world: World) -> bool:
    rows = await world.rows(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )
    return bool(rows)


async def test_an_album_that_arrives_in_part_says_how_much(
    world: World, database: Database
) -> None:
    """L-43: 3 of 4 is told as such, to the one who asked, when the last item has ended."""
    *good, bad = await album(world, 4)
    await fail(database, bad["id"], ErrorType.REJECTED)
    await world.execute(
        "UPDATE queue_items SET stage = 'ready' WHERE status = ANY($1)", [*ACTIVE_STATUSES]
    )
    await world.execute(
        "UPDATE queue_items SET stage = 'fetching', lease_until = now() WHERE stage = 'ready'"
    )
    for item in good:
        assert await album_events(world) == []
        async with database.transaction() as connection:
            assert await complete(
                connection, item["id"], FACTS, fence=None, reason="x", actor="a test"
            )
    (event,) = await album_events(world)
    assert (event["data"]["completed"], event["data"]["failed"]) == (3, 1)
    assert event["data"]["user_ids"] == ["42"]
    assert event["data"]["album_name"] == "A name"
