"""The entry of tracks into the queue: one active item for each track, with all requesters.

Used by ingest for what people and the catalog server ask, and by the watchdog for what it found.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from shared.catalog.models import Track
from shared.db import moves
from shared.db.pool import Connection
from shared.db.turns import NOBODY, places
from shared.errors import DependencyDown

Kind = Literal["track", "album", "scan"]
Source = Literal["http", "nats", "watchdog"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request over HTTP or NATS, or by the watchdog; `user_id` None: of the service itself."""

    id: str
    user_id: str | None
    kind: Kind
    content_id: str
    content_name: str | None
    artist_name: str | None
    priority: int
    source: Source
    # Each track gets a ticket of its own, and so a turn.
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Enqueued:
    """The items of the tracks of a request, by track id."""

    queued: dict[str, str] = field(default_factory=dict)
    joined: dict[str, str] = field(default_factory=dict)
    # How many of the joined items this user had not requested before.
    newly_joined: int = 0

    @property
    def charged(self) -> bool:
        """Whether this counts as a request against the user's daily limit."""
        return bool(self.queued) or self.newly_joined > 0


_INSERT_REQUEST = """
INSERT INTO requests (id, user_id, kind, content_id, content_name, artist_name, priority, source,
                      charged, already_available, settled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, false, $9, CASE WHEN $10 THEN now() END)
ON CONFLICT (id) DO NOTHING
"""


async def record_request(
    connection: Connection, request: Request, *, settled: bool, already_available: int = 0
) -> bool:
    """Write a request; False when one with this id was written before.

    `settled`: there is nothing to wait for, so that no item's end will settle it.
    """
    done = await connection.execute(
        _INSERT_REQUEST,
        request.id,
        request.user_id,
        request.kind,
        request.content_id,
        request.content_name,
        request.artist_name,
        request.priority,
        request.source,
        already_available,
        settled,
    )
    return done == "INSERT 0 1"


# The items are locked: one that is being completed makes this wait, and is not active afterwards.
# So no requester is added after the event that names the requesters.
# An item that would be served later than the request's own turn gets that.
_JOIN_ITEMS = """
WITH locked AS MATERIALIZED (
    SELECT id FROM queue_items
     WHERE track_id = ANY($1) AND status IN ('PENDING', 'DOWNLOADING')
     ORDER BY track_id FOR NO KEY UPDATE
)
UPDATE queue_items q
   SET priority = least(q.priority, $2),
       turn = CASE WHEN (q.priority, q.turn) > ($2, w.turn) THEN w.turn ELSE q.turn END,
       turn_of = CASE WHEN (q.priority, q.turn) > ($2, w.turn) THEN $3 ELSE q.turn_of END
  FROM locked l, (SELECT t.track_id, (SELECT next_turn($3, $2)) + t.place AS turn
                    FROM unnest($1::text[], $4::int[]) AS t (track_id, place)) w
 WHERE q.id = l.id AND q.track_id = w.track_id AND q.status IN ('PENDING', 'DOWNLOADING')
RETURNING q.id, q.track_id
"""

_KNOWN_REQUESTERS = """
SELECT DISTINCT item_id FROM item_requesters
 WHERE item_id = ANY($1) AND user_id IS NOT DISTINCT FROM $2 AND withdrawn_at IS NULL
"""

INSERT_REQUESTERS = """
INSERT INTO item_requesters (item_id, request_id, user_id)
SELECT item_id, $2, $3 FROM unnest($1::text[]) AS t (item_id)
"""

_CHARGE = "UPDATE requests SET charged = true WHERE id = $1"

# An item that ends before it is joined is inserted again. More than a few such turns in a row have
# another cause.
_TURNS = 5


async def enqueue(
    connection: Connection, request: Request, tracks: Sequence[Track], *, actor: str
) -> Enqueued:
    """Queue `tracks` for a request that `record_request` has written, joining what is active.

    Call it in the same transaction as `record_request`. The order of `tracks` is the order in
    which they will be worked on.
    """
    found = Enqueued()
    missing = {track.id: track for track in tracks}
    for _ in range(_TURNS):
        found.queued.update(await _arrive(connection, request, list(missing.values()), actor=actor))
        missing = {id_: track for id_, track in missing.items() if id_ not in found.queued}
        if missing:
            rows = await connection.fetch(
                _JOIN_ITEMS,
                list(missing),
                request.priority,
                request.user_id or NOBODY,
                places(list(missing.values()), apart=request.apart),
            )
            found.joined.update({row["track_id"]: row["id"] for row in rows})
            missing = {id_: track for id_, track in missing.items() if id_ not in found.joined}
        if not missing:
            break
    else:
        raise DependencyDown("postgres", "the queue changes too fast to join it")
    return await _add_requester(connection, request, found)


async def _arrive(
    connection: Connection, request: Request, tracks: Sequence[Track], *, actor: str
) -> dict[str, str]:
    watchdog = request.source == "watchdog"
    return await moves.arrive(
        connection,
        tracks,
        [str(uuid.uuid4()) for _ in tracks],
        priority=request.priority,
        user_id=request.user_id,
        reason="found missing" if watchdog else f"requested over {request.source}",
        actor=actor,
        apart=request.apart,
    )


async def _add_requester(connection: Connection, request: Request, found: Enqueued) -> Enqueued:
    joined = list(found.joined.values())
    known = await connection.fetch(_KNOWN_REQUESTERS, joined, request.user_id)
    await connection.execute(
        INSERT_REQUESTERS, [*found.queued.values(), *joined], request.id, request.user_id
    )
    whole = Enqueued(
        queued=found.queued, joined=found.joined, newly_joined=len(joined) - len(known)
    )
    if whole.charged:
        await charge(connection, request.id)
    return whole


async def charge(connection: Connection, request_id: str) -> None:
    """Count a recorded request against its user's daily limit."""
    await connection.execute(_CHARGE, request_id)
