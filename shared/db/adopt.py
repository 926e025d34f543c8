"""Adoption: the record of a file that is in the media root without a ledger row."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from shared.catalog.models import Track
from shared.crashpoints import reached
from shared.db import moves
from shared.db.enqueue import Request
from shared.db.ledger import File, Placed, announce_ready, complete, placed, record_adopted
from shared.db.pool import Connection
from shared.errors import Stale
from shared.media.placed_file import Whole
from shared.states import LEASED, Stage, allowed_from

_REASON = "a whole file lies in place"

_ACTIVE = """
SELECT id, track_id, stage FROM queue_items
 WHERE track_id = ANY($1) AND status IN ('PENDING', 'DOWNLOADING')
 ORDER BY track_id
   FOR NO KEY UPDATE
"""

_ADD_REQUESTER = """
INSERT INTO item_requesters (item_id, request_id, user_id) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
"""

# No worker has the item, so that it can be completed here.
_IDLE = set(allowed_from(Stage.COMPLETED)) - {stage.value for stage in LEASED}


async def busy(connection: Connection, track_ids: Collection[str]) -> set[str]:
    """Those of these tracks whose item a worker has: it is joined, not adopted.

    The active items stay locked to the end of the transaction.
    """
    rows = await connection.fetch(_ACTIVE, list(track_ids)) if track_ids else []
    return {row["track_id"] for row in rows if row["stage"] not in _IDLE}


async def adopt(
    connection: Connection,
    request: Request,
    track: Track,
    whole: Whole,
    *,
    known: Placed | None,
    actor: str,
) -> str:
    """Record a verified file that is in place, with a completed item; returns the item's id.

    The item is queued and completed in this transaction, so that its history says what happened
    and `audio.ready` tells the catalog of a file that it may not know. `known` is the ledger's
    row as it was when the file was looked at.

    Raises:
        Stale: another transaction has queued or recorded the track; check again.
    """
    active = await connection.fetchrow(_ACTIVE, [track.id])
    item_id = active["id"] if active else str(uuid.uuid4())
    if active is None:
        arrived = await moves.arrive(
            connection,
            [track],
            [item_id],
            priority=request.priority,
            user_id=request.user_id,
            reason="a file was found in place",
            actor=actor,
        )
        if not arrived:
            raise Stale(f"{track.id} was queued at this very moment")
    # Not earlier: before our row was there, another request may have adopted the file.
    if (await placed(connection, [track.id])).get(track.id) != known:
        raise Stale(f"{track.id} was placed at this very moment")
    await connection.execute(_ADD_REQUESTER, item_id, request.id, request.user_id)
    if not await complete(
        connection,
        item_id,
        whole.facts,
        fence=None,
        reason=_REASON,
        actor=actor,
        uri=whole.uri,
    ):
        raise Stale(f"{track.id} was taken up at this very moment")
    return item_id


async def adopt_unasked(
    connection: Connection,
    track: Track,
    whole: Whole,
    *,
    known: Placed | None,
    named: bool,
    actor: str,
) -> None:
    """Record a verified file that is in place, without a request.

    An item that waits for its turn is completed with it; one that a worker or Torrentino has is
    left to its worker, which finds the file. `audio.ready` is written with the item, or if the
    catalog has not `named` the file. `known` is as for `adopt`.

    Raises:
        Stale: another transaction has queued or recorded the track; check again.
    """
    active = await connection.fetchrow(_ACTIVE, [track.id])
    if (await placed(connection, [track.id])).get(track.id) != known:
        raise Stale(f"{track.id} was placed at this very moment")
    if active is not None and active["stage"] in _IDLE:
        item_id: str = active["id"]
        done = await complete(
            connection,
            item_id,
            whole.facts,
            fence=None,
            reason=_REASON,
            actor=actor,
            uri=whole.uri,
        )
        assert done, "the row is locked, and no worker has it"
        return
    file = File(track_id=track.id, album_id=track.album_id, uri=whole.uri, facts=whole.facts)
    if not await record_adopted(connection, file, known=known):
        raise Stale(f"{track.id} was placed at this very moment")
    reached("adopt.recorded")
    if not named:
        await announce_ready(connection, file, item_id=None, actor=actor)
