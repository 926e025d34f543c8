"""What a user waits for, or was told, already."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from shared.db.pool import Connection, Row

_WAITED_FOR = """
SELECT DISTINCT q.track_id, q.id, q.priority
  FROM queue_items q JOIN item_requesters r ON r.item_id = q.id
 WHERE q.track_id = ANY($2) AND q.status IN ('PENDING', 'DOWNLOADING')
   AND r.user_id = $1 AND r.withdrawn_at IS NULL
"""

# An open request that waits for all of these items; of the album, where it is one.
_OF_ITEMS = """
SELECT r.id
  FROM requests r JOIN item_requesters i ON i.request_id = r.id AND i.withdrawn_at IS NULL
 WHERE r.user_id = $1 AND i.item_id = ANY($2)
   AND ($3::text IS NULL OR (r.kind = 'album' AND r.content_id = $3 AND r.settled_at IS NULL))
 GROUP BY r.id
HAVING count(*) = cardinality($2::text[])
 ORDER BY min(r.created_at)
 LIMIT 1
"""

_ANSWERED = """
SELECT id FROM requests
 WHERE user_id = $1 AND kind = $2 AND content_id = $3 AND source <> 'withdrawn'
   AND created_at > now() - interval '1 day'
 ORDER BY created_at DESC LIMIT 1
"""


async def waited_for(
    connection: Connection, user_id: str, track_ids: Collection[str]
) -> Sequence[Row]:
    """The active items of these tracks that the user waits for: `id`, `track_id`, `priority`."""
    return await connection.fetch(_WAITED_FOR, user_id, list(track_ids))


async def of_items(
    connection: Connection, user_id: str, item_ids: Collection[str], *, content_id: str | None
) -> str | None:
    """The user's oldest open request for all of these items; `content_id`: for this album."""
    found: str | None = await connection.fetchval(_OF_ITEMS, user_id, list(item_ids), content_id)
    return found


async def answered(
    connection: Connection, user_id: str, *, kind: str, content_id: str
) -> str | None:
    """The user's last request for the same within a day."""
    found: str | None = await connection.fetchval(_ANSWERED, user_id, kind, content_id)
    return found
