"""What the poller reads of the items of a download, and when they are due again."""

from __future__ import annotations

from collections.abc import Sequence

from shared.db.pool import Connection
from shared.states import REMOTE, Stage, values

_DETOURS = "SELECT coalesce(max(detours), 0) FROM queue_items WHERE ticket_id = $1"

_ASK_BY_ALBUM = "UPDATE queue_items SET ask_next = 'album' WHERE id = ANY($1) AND stage = $2"

# The last one decides when. Those that another worker moves just now are left out.
_SHARE_DUE_TIME = """
WITH waiting AS (
    SELECT q.id, q.album_id, q.due_at FROM queue_items q
     WHERE q.album_id IN (SELECT f.album_id FROM queue_items f WHERE f.id = ANY($1))
       AND q.stage = $3 AND q.error_type = 'not_found'
       AND ($2 OR q.ask_next = 'album')
       FOR NO KEY UPDATE OF q SKIP LOCKED
), last AS (
    SELECT album_id, max(due_at) AS due_at FROM waiting GROUP BY album_id
)
UPDATE queue_items q
   SET due_at = last.due_at, wait_s = greatest(extract(epoch FROM last.due_at - now()), 0)
  FROM waiting JOIN last USING (album_id)
 WHERE q.id = waiting.id AND q.due_at < last.due_at
"""

_ITEMS = "SELECT id FROM queue_items WHERE ticket_id = $1 AND stage = ANY($2) ORDER BY seq"


async def share_due_time(
    connection: Connection, item_ids: Sequence[str], *, again: bool, always: bool
) -> None:
    """Make the items of an album that wait to ask for it due together, so that they share a ticket.

    The latest of them decides when. `again`: of these items the album is asked for next,
    as it was now. `always`: where nothing but albums is asked for.
    """
    if again:
        await connection.execute(_ASK_BY_ALBUM, item_ids, Stage.RETRY_WAIT)
    await connection.execute(_SHARE_DUE_TIME, item_ids, always, Stage.RETRY_WAIT)


async def detours(connection: Connection, download_id: str) -> int:
    """How many downloads in a row have led its items nowhere before this one."""
    return int(await connection.fetchval(_DETOURS, download_id))


async def items_of(connection: Connection, download_id: str) -> list[str]:
    """The items that wait for this download."""
    rows = await connection.fetch(_ITEMS, download_id, values(REMOTE))
    return [row["id"] for row in rows]
