"""The end of album requests: one event when the last item of a request has ended."""

from __future__ import annotations

from collections.abc import Collection

from shared.db.events import record_events
from shared.db.pool import Connection, Row
from shared.events import AlbumCompleted

# An item that the user withdrew does not count; a request of which all items are withdrawn is
# settled without an event.
# The request rows are locked in order before their items are counted: of two items that end at the
# same moment, the second waits here for the first one's commit and then sees it.
_LOCK_ALBUMS = """
SELECT r.id FROM requests r
 WHERE r.kind = 'album' AND r.settled_at IS NULL
   AND EXISTS (SELECT 1 FROM item_requesters i WHERE i.request_id = r.id AND i.item_id = ANY($1))
 ORDER BY r.id
   FOR NO KEY UPDATE
"""

_SETTLE_ALBUMS = """
WITH counted AS (
    SELECT r.id,
           count(*) FILTER (WHERE q.status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE q.status = 'FAILED') AS failed,
           count(*) FILTER (WHERE q.status IN ('PENDING', 'DOWNLOADING')) AS open
      FROM requests r
      LEFT JOIN item_requesters i ON i.request_id = r.id AND i.withdrawn_at IS NULL
      LEFT JOIN queue_items q ON q.id = i.item_id
     WHERE r.id = ANY($1)
     GROUP BY r.id
)
UPDATE requests r SET settled_at = now()
  FROM counted c WHERE r.id = c.id AND c.open = 0
RETURNING r.id, r.content_id, r.content_name, r.artist_name, r.user_id,
          r.already_available, c.completed, c.failed
"""


async def settle_albums(connection: Connection, item_ids: Collection[str], *, actor: str) -> None:
    """Close the album requests whose last item has just ended, with one event each.

    Call it in the transaction that ended the items, or that withdrew a request for them.
    """
    rows = await connection.fetch(_LOCK_ALBUMS, list(item_ids))
    if not rows:
        return
    settled = await connection.fetch(_SETTLE_ALBUMS, [row["id"] for row in rows])
    completed = [_album_completed(row) for row in settled if row["completed"] + row["failed"] > 0]
    if completed:
        await record_events(connection, completed, actor=actor)


def _album_completed(row: Row) -> AlbumCompleted:
    return AlbumCompleted(
        album_id=row["content_id"],
        album_name=row["content_name"],
        artist_name=row["artist_name"],
        request_ids=(row["id"],),
        user_ids=() if row["user_id"] is None else (row["user_id"],),
        completed=row["completed"],
        failed=row["failed"],
        already_available=row["already_available"],
    )
