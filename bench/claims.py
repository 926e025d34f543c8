"""A claim of the ticketer, and the arrival of a request, behind 300,000 items that wait."""

from __future__ import annotations

import time
import uuid
from typing import Any

from bench.setting import milliseconds
from services.ticketer.store import Store
from shared.db.enqueue import Request, enqueue, record_request
from shared.db.pool import Database
from tests.support.stages import catalog_track
from tests.support.world import World, track_id

_WAITING = 300_000
_USERS = 50
_TIMES = 30

# Nine in ten of a scan, in albums of ten; the others of users, alone.
_FILL = f"""
INSERT INTO queue_items (id, track_id, stage, priority, requested_by_user_id, actor, reason,
                         track_name, artist_name, main_artist, duration_ms, album_id, album_name,
                         turn, turn_of)
SELECT gen_random_uuid()::text, 'B' || lpad(n::text, 21, '0'), 'queued',
       CASE WHEN n % 10 = 0 THEN 2 ELSE 3 END, CASE WHEN n % 10 = 0 THEN 'u' || n % {_USERS} END,
       'bench', 'fill', 'Song ' || n, 'The Testers', 'The Testers', 2000,
       CASE WHEN n % 10 > 0 THEN 'A' || n / 10 END, CASE WHEN n % 10 > 0 THEN 'Album' END,
       n / 10, CASE WHEN n % 10 = 0 THEN 'u' || n % {_USERS} ELSE '' END
  FROM generate_series(1, {_WAITING}) AS n
"""


async def run(world: World) -> dict[str, Any]:
    """Claims of one place each and of sixteen, and requests of one track."""
    await world.execute(_FILL)
    await world.execute("ANALYZE queue_items")
    database = Database(world.database_url)
    store = Store(
        database,
        dest_root="/media/incoming",
        grouping="auto",
        max_in_flight=10_000,
        lease_s=60.0,
        worker="bench",
    )
    took = {
        "claim of one ticket": [await _claim(store, 1) for _ in range(_TIMES)],
        "claim of sixteen tickets": [await _claim(store, 16) for _ in range(_TIMES)],
        "a request of one track": [await _request(database, n) for n in range(_TIMES)],
    }
    await database.close()
    return {name: milliseconds(values) for name, values in took.items()}


async def _claim(store: Store, limit: int) -> float:
    started = time.monotonic()
    claimed = await store.claim(limit, takes_new=True)
    assert len(claimed) == limit
    return time.monotonic() - started


async def _request(database: Database, number: int) -> float:
    request = Request(
        id=str(uuid.uuid4()),
        user_id=f"u{number % _USERS}",
        kind="track",
        content_id="somewhere",
        content_name=None,
        artist_name=None,
        priority=2,
        source="http",
    )
    track = catalog_track(track_id(number), seconds=2.0, artist="The Testers", album=None)
    started = time.monotonic()
    async with database.transaction() as connection:
        await record_request(connection, request, settled=False)
        await enqueue(connection, request, [track], actor="bench")
    return time.monotonic() - started
