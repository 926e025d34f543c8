"""Taking over a file that lies in the media root without a row of ours."""

from __future__ import annotations

import uuid

from shared.catalog.models import Track
from shared.db.enqueue import Request, columns
from shared.db.ledger import complete
from shared.db.pool import Connection
from shared.errors import DependencyDown
from shared.media.verify import AudioFacts
from shared.states import STATUS_OF, Stage

# An active item of the track is completed instead; see `adopt`.
_ACTIVE = """
SELECT id, stage FROM queue_items
 WHERE track_id = $1 AND status IN ('PENDING', 'DOWNLOADING')
   FOR NO KEY UPDATE
"""

_INSERT = """
INSERT INTO queue_items (id, track_id, status, stage, priority, requested_by_user_id, actor,
                         reason, album_id, track_name, artist_name, main_artist, album_name,
                         album_artist, disc_number, track_number, duration_ms, isrc)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'a file was found in place', $8, $9, $10, $11, $12, $13, $14,
        $15, $16, $17)
ON CONFLICT (track_id) WHERE status IN ('PENDING', 'DOWNLOADING') DO NOTHING
"""

_ADD_REQUESTER = """
INSERT INTO item_requesters (item_id, request_id, user_id) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
"""


async def adopt(
    connection: Connection, request: Request, track: Track, facts: AudioFacts, *, actor: str
) -> str:
    """Record a verified file that lies in place, with a completed item; returns the item's id.

    The item is queued and completed in this transaction, so that its history says what happened
    and `audio.ready` tells the catalog of a file that it may not know.
    """
    active = await connection.fetchrow(_ACTIVE, track.id)
    item_id = active["id"] if active else str(uuid.uuid4())
    if active is None:
        inserted = await connection.execute(
            _INSERT,
            item_id,
            track.id,
            STATUS_OF[Stage.QUEUED].value,
            Stage.QUEUED.value,
            request.priority,
            request.user_id,
            actor,
            *(column[0] for column in columns([track])),
        )
        if inserted != "INSERT 0 1":
            raise DependencyDown("postgres", f"{track.id} was queued at this very moment")
    await connection.execute(_ADD_REQUESTER, item_id, request.id, request.user_id)
    # An active item that somebody works on stays as it is: its fetcher-writer adopts the file.
    await complete(
        connection, item_id, facts, fence=None, reason="a whole file lies in place", actor=actor
    )
    return item_id
