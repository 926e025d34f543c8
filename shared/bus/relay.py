"""The outbox relay: from the events table to JetStream.

Every process runs one, woken by its own commits and by the clock, and publishes also what ended
processes left. Two relays never take the same row at the same time. A row whose relay died between
publishing and commit is published again under the same `Nats-Msg-Id`.
"""

from __future__ import annotations

import asyncio
import json

import structlog

from shared.bus.nats import Bus, NotAccepted, Outgoing
from shared.bus.streams import EVENTS_KEPT_S
from shared.bus.subjects import event_subject
from shared.crashpoints import reached
from shared.db.identity import installation_id
from shared.db.pool import IN_INDEX_ORDER, Connection, Database, Row
from shared.events import SUBJECT_FIELDS, ItemMoved, Json, envelope
from shared.metrics import EVENTS_PUBLISHED

log = structlog.get_logger()

TAKE = """
SELECT e.seq, e.id, e.kind, e.item_id, e.request_id, extract(epoch FROM e.at) AS at, e.actor,
       e.from_stage, e.stage, e.status, e.attempt, e.retry_count, e.reason, e.error_type, e.data,
       q.track_id, q.album_id
  FROM events e LEFT JOIN queue_items q ON q.id = e.item_id
 WHERE e.published_at IS NULL
 ORDER BY e.seq
 LIMIT 200
   FOR UPDATE OF e SKIP LOCKED
"""

# In parts, so that each statement ends well within its timeout.
_FORGET = """
WITH part AS (
    SELECT seq FROM events
     WHERE seq > $1 AND published_at IS NOT NULL AND at > now() - make_interval(secs => $2)
     ORDER BY seq LIMIT 5000
), forgotten AS (
    UPDATE events e SET published_at = NULL FROM part WHERE e.seq = part.seq RETURNING e.seq
)
SELECT max(seq) AS last, count(*) AS count FROM forgotten
"""

_MARK = "UPDATE events SET published_at = now() WHERE seq = ANY($1)"

# What is kept of an event that is too large for NATS.
_MAX_TEXT = 1000
_MAX_PARTS = 100


class Relay:
    """Publishes the rows of the outbox."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self.wake = asyncio.Event()
        bus.before_new_events = self.publish_again
        bus.installation = self.installation

    async def installation(self) -> str:
        """The name of this installation."""
        async with self._database.connection() as connection:
            return await installation_id(connection)

    async def run_once(self) -> int:
        """Publish one batch; returns how many events it had.

        Raises:
            DependencyDown: PostgreSQL or NATS is unavailable; the rows stay.
        """
        if self._bus.connected.is_set():  # without a connection no stream is known to be missing
            await self._bus.ensure()
        async with self._database.transaction() as connection:
            return await self._publish(connection)

    async def publish_again(self) -> None:
        """Mark the events that the lost stream would still have as not published.

        Raises:
            DependencyDown: PostgreSQL is unavailable.
        """
        last: int | None = 0
        count = 0
        while last is not None:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(_FORGET, last, EVENTS_KEPT_S)
            assert row is not None
            last, count = row["last"], count + row["count"]
        if count:
            log.warning("events_published_again", count=count, why="NATS has no stream of events")
        self.wake.set()

    async def _publish(self, connection: Connection) -> int:
        await connection.execute(IN_INDEX_ORDER)
        rows = await connection.fetch(TAKE)
        if not rows:
            return 0
        reached("relay.taken")
        limit = self._bus.max_payload
        refused: dict[str, str] = {}
        try:
            await self._bus.publish([message(row, max_bytes=limit) for row in rows])
        except NotAccepted as error:
            # A repetition would be refused too, and delay all later events. The row stays.
            refused = error.reasons
        reached("relay.published")
        for event_id, reason in refused.items():
            log.error("event_not_accepted", event_id=event_id, reason=reason)
        await connection.execute(_MARK, [row["seq"] for row in rows])
        reached("relay.marked")
        EVENTS_PUBLISHED.inc(len(rows) - len(refused))
        return len(rows)


def message(row: Row, *, max_bytes: int) -> Outgoing:
    """An outbox row as the message that `contract.md` describes, cut to what NATS takes."""
    event_id = str(row["id"])
    head = envelope(event_id=event_id, seq=row["seq"], at=int(row["at"]))
    if row["kind"] == ItemMoved.kind:
        subject = event_subject(row["kind"], row["stage"], row["item_id"])
        body = head | _moved(row).data()
    else:
        field = SUBJECT_FIELDS.get(row["kind"])
        subject = event_subject(row["kind"], *([row["data"].get(field)] if field else []))
        item = {"item_id": row["item_id"]} if row["item_id"] else {}
        body = head | item | row["data"]
    whole = Outgoing(subject=subject, body=json.dumps(body).encode(), id=event_id)
    if whole.size_bytes <= max_bytes:
        return whole
    cut = json.dumps(_cut(body) | {"truncated": True}).encode()
    return Outgoing(subject=subject, body=cut, id=event_id)


def _moved(row: Row) -> ItemMoved:
    return ItemMoved(
        item_id=row["item_id"],
        track_id=row["track_id"],
        album_id=row["album_id"],
        status=row["status"],
        stage=row["stage"],
        from_stage=row["from_stage"],
        attempt=row["attempt"],
        retry_count=row["retry_count"],
        service=row["actor"],
        reason=row["reason"],
        error_type=row["error_type"],
        ticket=row["data"],
    )


def _cut(body: Json) -> Json:
    """The same with long texts and lists cut, and nested objects left out."""
    kept: Json = {}
    for name, value in body.items():
        if isinstance(value, str):
            kept[name] = value[:_MAX_TEXT]
        elif isinstance(value, list):
            kept[name] = [str(part)[:_MAX_TEXT] for part in value[:_MAX_PARTS]]
        elif not isinstance(value, dict):
            kept[name] = value
    return kept
