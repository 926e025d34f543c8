"""The outbox relay: from the events table to JetStream.

Every process runs one, woken by its own commits; the reaper's also runs by the clock and so finds
what the others left. Two relays never take the same row at the same time, and a row that was
published by a relay that died before its commit goes out again under the same `Nats-Msg-Id`.
"""

from __future__ import annotations

import asyncio
import json

from shared.bus import subjects
from shared.bus.nats import Bus, Outgoing
from shared.db.pool import Connection, Database, Row
from shared.metrics import EVENTS_PUBLISHED

_TAKE = """
SELECT e.seq, e.id, e.kind, e.item_id, e.request_id, extract(epoch FROM e.at) AS at, e.actor,
       e.from_stage, e.stage, e.status, e.attempt, e.retry_count, e.reason, e.error_type, e.data,
       q.track_id, q.album_id
  FROM events e LEFT JOIN queue_items q ON q.id = e.item_id
 WHERE e.published_at IS NULL
 ORDER BY e.seq
 LIMIT 200
   FOR UPDATE OF e SKIP LOCKED
"""

_MARK = "UPDATE events SET published_at = now() WHERE seq = ANY($1)"


class Relay:
    """Publishes what the outbox holds."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self.wake = asyncio.Event()

    async def run_once(self) -> int:
        """Publish one batch; returns how many events left.

        Raises:
            DependencyDown: PostgreSQL or NATS is away; the rows stay.
        """
        async with self._database.transaction() as connection:
            return await self._publish(connection)

    async def _publish(self, connection: Connection) -> int:
        rows = await connection.fetch(_TAKE)
        if not rows:
            return 0
        await self._bus.publish([message(row) for row in rows])
        await connection.execute(_MARK, [row["seq"] for row in rows])
        EVENTS_PUBLISHED.inc(len(rows))
        return len(rows)


def message(row: Row) -> Outgoing:
    """An outbox row as the message that `contract.md` describes."""
    event_id = str(row["id"])
    head = {"v": 1, "event_id": event_id, "seq": row["seq"], "at": int(row["at"])}
    if row["kind"] == "item":
        subject = f"{subjects.EVENT}.item.{row['stage']}.{row['item_id']}"
        body = head | _item_body(row)
    else:
        subject = f"{subjects.EVENT}.{row['kind']}{_suffix(row)}"
        item = {"item_id": row["item_id"]} if row["item_id"] else {}
        body = head | item | row["data"]
    return Outgoing(subject=subject, body=json.dumps(body).encode(), id=event_id)


def _suffix(row: Row) -> str:
    match row["kind"]:
        case "audio.ready":
            return f".{row['data']['track_id']}"
        case "album.completed":
            return f".{row['data']['album_id']}"
        case _:
            return ""


def _item_body(row: Row) -> dict[str, object]:
    return {
        "item_id": row["item_id"],
        "track_id": row["track_id"],
        "album_id": row["album_id"],
        "status": row["status"],
        "stage": row["stage"],
        "from_stage": row["from_stage"],
        "attempt": row["attempt"],
        "retry_count": row["retry_count"],
        "service": row["actor"],
        "reason": row["reason"],
        "error_type": row["error_type"],
        **row["data"],
    }
