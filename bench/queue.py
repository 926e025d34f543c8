"""A queue of a million items: what is asked again and again, and what a move costs.

`BENCH_ITEMS` sets another number. `before` are the statements that read the items.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from services.ingest.store.positions import positions
from shared.db import moves
from shared.db.claims import Claim
from shared.db.item_counts import count_items, sum_up
from shared.db.pool import Database
from shared.states import Stage
from tests.support.world import World

_ITEMS = int(os.environ.get("BENCH_ITEMS", "1000000"))
_MOVES = 500
_AT_ONCE = 100

# Of ten items six are completed, one has failed, one waits for its next attempt, two are queued.
_FILL = """
INSERT INTO queue_items (id, track_id, status, stage, priority, actor, reason, track_name,
                         completed_at)
SELECT 'i' || n, 'T' || n,
       CASE WHEN n % 10 < 6 THEN 'COMPLETED' WHEN n % 10 = 6 THEN 'FAILED' ELSE 'PENDING' END,
       CASE WHEN n % 10 < 6 THEN 'completed' WHEN n % 10 = 6 THEN 'failed'
            WHEN n % 10 = 7 THEN 'retry_wait' ELSE 'queued' END,
       3, 'bench', '', 'Song', CASE WHEN n % 10 < 7 THEN 1 END
  FROM generate_series(1, $1::int) AS n
"""
_COUNT_THEM = """
INSERT INTO item_counts SELECT stage, priority, count(*) FROM queue_items GROUP BY stage, priority
"""
_TICKET = """
INSERT INTO tickets (id, dest_path, priority, state, torrentino_id, closed_at)
VALUES ('t', '/t', 2, 'closed', 'r', now())
"""
_READY = """
INSERT INTO queue_items (id, track_id, status, stage, priority, actor, reason, track_name,
                         ticket_id)
SELECT 'r' || n, 'R' || n, 'DOWNLOADING', 'ready', 2, 'bench', '', 'Song', 't'
  FROM generate_series(1, $1::int) AS n
"""

COUNT_BEFORE = """
SELECT stage, priority, count(*) AS count FROM queue_items GROUP BY stage, priority
"""
POSITION_BEFORE = """
SELECT p.id, p.position
  FROM (SELECT id, row_number() OVER (ORDER BY priority, seq) AS position
          FROM queue_items
         WHERE stage = 'queued'
           AND (priority, seq) <= (SELECT l.priority, l.seq FROM queue_items l
                                    WHERE l.id = ANY($1) AND l.stage = 'queued'
                                    ORDER BY l.priority DESC, l.seq DESC LIMIT 1)) p
 WHERE p.id = ANY($1)
"""


async def run(world: World) -> dict[str, Any]:
    """The best of five of each, in milliseconds; moves a second, of one item and of a hundred."""
    await _fill(world)
    database = Database(world.database_url)
    last = [f"i{_ITEMS - 1}"]
    try:
        async with database.transaction() as connection:
            await sum_up(connection)
            result = {
                "items": _ITEMS,
                "count ms": await _best_ms(lambda: count_items(connection)),
                "count before ms": await _best_ms(lambda: connection.fetch(COUNT_BEFORE)),
                "last position ms": await _best_ms(lambda: positions(connection, last)),
                "last position before ms": await _best_ms(
                    lambda: connection.fetch(POSITION_BEFORE, last)
                ),
            }
        return result | await _moves(world, database)
    finally:
        await database.close()


async def _fill(world: World) -> None:
    connection = await asyncpg.connect(world.database_url)
    try:
        async with connection.transaction():
            # Without the triggers: a million rows of history are no part of the question.
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(_FILL, _ITEMS)
            await connection.execute(_COUNT_THEM)
        await connection.execute(_TICKET)
        await connection.execute(_READY, _AT_ONCE)
        await connection.execute("VACUUM ANALYZE queue_items")
    finally:
        await connection.close()


async def _moves(world: World, database: Database) -> dict[str, Any]:
    """Items claimed to be collected and handed back, again and again."""
    every = [f"r{number}" for number in range(1, _AT_ONCE + 1)]
    return {
        f"moves a second, {len(ids)} at once": await _rate(world, database, ids)
        for ids in (every[:1], every)
    }


async def _rate(world: World, database: Database, ids: list[str]) -> float:
    rounds = max(_MOVES // len(ids), 20)
    started = time.perf_counter()
    for _ in range(rounds):
        async with database.transaction() as connection:
            await moves.claim_to_collect(connection, ids, worker="w", lease_s=60, actor="bench")
        rows = await world.rows("SELECT id, fence FROM queue_items WHERE id = ANY($1)", ids)
        claims = [Claim(item_id=row["id"], fence=row["fence"]) for row in rows]
        async with database.transaction() as connection:
            back = await moves.hand_back(
                connection, claims, Stage.READY, delay_s=0, reason="bench", actor="bench"
            )
        assert len(back) == len(ids)
    return round(2 * rounds * len(ids) / (time.perf_counter() - started), 1)


async def _best_ms(ask: Callable[[], Awaitable[object]]) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        await ask()
        best = min(best, time.perf_counter() - started)
    return round(best * 1000, 2)
