"""How many items there are, by stage and priority, without reading the items.

The triggers of `queue_items` add what each statement changes; the count is the sum. It is exact for
every transaction, and takes the same time for millions of items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from shared.db.pool import Connection
from shared.states import Stage

Counts: TypeAlias = Mapping[tuple[Stage, int], int]

COUNT = """
SELECT stage, priority, sum(change)::bigint AS count FROM item_counts
 GROUP BY stage, priority HAVING sum(change) <> 0
"""

# So many rows are summed up in one statement; fewer are not worth it.
_MOST, _LEAST = 50_000, 200

SUM_UP = """
WITH taken AS (
    DELETE FROM item_counts
     WHERE ctid = ANY(ARRAY(SELECT ctid FROM item_counts LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING stage, priority, change
)
INSERT INTO item_counts (stage, priority, change)
SELECT stage, priority, sum(change) FROM taken GROUP BY stage, priority HAVING sum(change) <> 0
"""

_IS_LONG = "SELECT EXISTS (SELECT 1 FROM item_counts OFFSET $1)"


async def count_items(connection: Connection) -> Counts:
    """The numbers of items that are not zero."""
    rows = await connection.fetch(COUNT)
    return {(Stage(row["stage"]), row["priority"]): row["count"] for row in rows}


async def sum_up(connection: Connection) -> None:
    """Replace the changes by their sums, so that counting stays fast; any number may do it."""
    if await connection.fetchval(_IS_LONG, _LEAST):
        await connection.execute(SUM_UP, _MOST)
