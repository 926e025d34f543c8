"""The position of a queued item in the queue, at a cost that does not grow with the queue."""

from __future__ import annotations

from collections.abc import Collection

from shared.db.item_counts import Counts, count_items
from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Row
from shared.states import WAITING, Stage, in_sql

# Of so many waiting items, in the order of the ticketer, positions are counted; behind them they
# are estimated.
COUNTED = 1000

# Literals, because a parameter would keep PostgreSQL from the partial index of what waits.
POSITIONS = f"""
SELECT p.id, p.position
  FROM (SELECT w.id, row_number() OVER (ORDER BY w.priority, w.turn, w.seq) AS position
          FROM (SELECT id, priority, turn, seq, stage FROM queue_items
                 WHERE stage IN ({in_sql(WAITING)})
                 ORDER BY priority, turn, seq LIMIT {COUNTED}) w
         WHERE w.stage IN ({in_sql([Stage.QUEUED])})) p
 WHERE p.id = ANY($1)
"""  # noqa: S608 (made of constants)

_END = f"""
SELECT turn, seq FROM queue_items w
 WHERE w.stage IN ({in_sql(WAITING)}) AND w.priority = q.priority
 ORDER BY turn {{direction}}, seq {{direction}} LIMIT 1"""  # noqa: S608

# Each with the first and the last that waits with its priority.
FAR = f"""
SELECT q.id, q.priority, q.turn, q.seq, first.turn AS first_turn, last.turn AS last_turn,
       first.seq AS first_seq, last.seq AS last_seq
  FROM queue_items q
 CROSS JOIN LATERAL ({_END.format(direction="ASC")}) first
 CROSS JOIN LATERAL ({_END.format(direction="DESC")}) last
 WHERE q.id = ANY($1) AND q.stage IN ({in_sql([Stage.QUEUED])})
"""  # noqa: S608 (made of constants)


async def positions(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    """The positions of these queued items in the queue, from 1 on. Call it in a transaction.

    Of the first thousand they are exact, of the others estimated: all with a more urgent priority
    come before, and of the same priority the share that `turn` suggests, or `seq` where all have
    the same turn.
    """
    if not ids:
        return {}
    await connection.execute(IN_INDEX_ORDER)
    rows = await connection.fetch(POSITIONS, list(ids))
    await connection.execute(IN_ANY_ORDER)
    found = {row["id"]: int(row["position"]) for row in rows}
    far = [id_ for id_ in ids if id_ not in found]
    if not far:
        return found
    counts = await count_items(connection)
    await connection.execute(IN_INDEX_ORDER)
    rows = await connection.fetch(FAR, far)
    await connection.execute(IN_ANY_ORDER)
    return found | {row["id"]: _estimate(row, counts) for row in rows}


def _estimate(row: Row, counts: Counts) -> int:
    queued = {priority: n for (stage, priority), n in counts.items() if stage is Stage.QUEUED}
    before = sum(count for priority, count in queued.items() if priority < row["priority"])
    same = queued.get(row["priority"], 0)
    by = "seq" if row["first_turn"] == row["last_turn"] else "turn"
    first, last = row[f"first_{by}"], row[f"last_{by}"]
    share = (row[by] - first) / (last - first) if last != first else 0.0
    return max(before + round(share * max(same - 1, 0)) + 1, 1)
