"""Counts and positions that cost the same for twenty items and for millions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.ingest.store.positions import COUNTED, FAR, POSITIONS, positions
from services.reaper.store import Store
from shared.db import item_counts
from shared.db.item_counts import count_items, sum_up
from shared.db.pool import Database
from shared.states import Stage
from tests.support.stages import bare_world, put_at, queue
from tests.support.world import Row, World, track_id


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """The database is all that these tests need."""
    with bare_world(tmp_path, database_url) as made:
        yield made


# In the order of `seq`: every fourth has priority 2, and every fifth waits for its next attempt.
_FILL = """
INSERT INTO queue_items (id, track_id, status, stage, priority, actor, reason, track_name, due_at)
SELECT 'i' || n, 'T' || n, 'PENDING', CASE WHEN n % 5 = 0 THEN 'retry_wait' ELSE 'queued' END,
       CASE WHEN n % 4 = 0 THEN 2 ELSE 3 END, 'watchdog', '', 'Song', now()
  FROM generate_series(1, $1::int) AS n
"""


async def _counted(world: World) -> Counter[tuple[str, int]]:
    rows = await world.rows("SELECT stage, priority FROM queue_items")
    return Counter((row["stage"], row["priority"]) for row in rows)


async def test_counts_are_those_of_the_rows(world: World, database: Database) -> None:
    """F29: after arrivals, moves, another priority, deletions, a rollback and a summing up."""

    async def same() -> None:
        async with database.connection() as connection:
            assert dict(await count_items(connection)) == dict(await _counted(world))

    await queue(world, [track_id(n) for n in range(1, 30)])
    await same()
    await queue(world, [track_id(n) for n in range(1, 10)], priority=1)
    items = await world.items()
    await put_at(world, items[0]["id"], Stage.FAILED)
    await same()
    with pytest.raises(asyncpg.CheckViolationError):
        await put_at(world, items[0]["id"], Stage.READY)
    await same()
    await world.execute("DELETE FROM queue_items WHERE id = $1", items[0]["id"])
    await same()
    await world.execute(_FILL, 20)
    for number in range(300):
        await world.execute("UPDATE queue_items SET priority = $1", 1 + number % 2)
    async with database.connection() as connection:
        for _ in range(2):
            await sum_up(connection)
    [kept] = await world.rows("SELECT count(*) AS rows FROM item_counts")
    assert kept["rows"] < 20
    await same()


async def _rows_read(world: World, sql: str, *args: object) -> float:
    """The most rows that a node of the plan gave, or filtered out, in all its loops."""
    [row] = await world.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *args)
    return max(_rows_of(json.loads(row["QUERY PLAN"])[0]["Plan"]))


def _rows_of(node: dict[str, Any]) -> Iterator[float]:
    yield (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    for child in node.get("Plans", []):
        yield from _rows_of(child)


async def test_no_count_and_no_position_reads_the_queue(world: World, database: Database) -> None:
    """F29: of 4,000 items a count reads the sums, and a position a thousand at most."""
    await world.execute(_FILL, 4000)
    await world.execute("ANALYZE")
    async with database.connection() as connection:
        await sum_up(connection)
    assert await _rows_read(world, item_counts.COUNT) <= 20
    assert await _rows_read(world, POSITIONS, ["i3999"]) <= COUNTED
    assert await _rows_read(world, FAR, ["i3999"]) <= 20


async def test_the_first_positions_are_exact_and_the_others_near(
    world: World, database: Database
) -> None:
    """F29: of 4,000 items in two priorities, and with some that wait for a time between them."""
    await world.execute(_FILL, 4000)
    rows = await world.rows(
        "SELECT id, row_number() OVER (ORDER BY priority, seq) AS place FROM queue_items"
        " WHERE stage = 'queued' ORDER BY priority, seq"
    )
    places = {row["id"]: row["place"] for row in rows}
    async with database.transaction() as connection:
        found = await positions(connection, list(places))
    assert found.keys() == places.keys()
    # A fifth of those that are counted wait for a time.
    exact = int(COUNTED * 0.8)
    assert _of(found, rows[:exact]) == list(range(1, exact + 1))
    assert max(abs(found[id_] - place) for id_, place in places.items()) <= len(rows) // 50
    ordered = _of(found, rows)
    assert ordered == sorted(ordered)


def _of(found: dict[str, int], rows: Sequence[Row]) -> list[int]:
    return [found[row["id"]] for row in rows]


async def test_the_reaper_measures_without_the_items(world: World, database: Database) -> None:
    """F29: its gauges come from the sums, and it keeps those short."""
    await world.execute(_FILL, 200)
    for number in range(300):
        await world.execute("UPDATE queue_items SET priority = $1 WHERE id = 'i1'", 1 + number % 2)
    await Store(database).measure()
    [kept] = await world.rows("SELECT count(*) AS rows FROM item_counts")
    assert kept["rows"] < 20
