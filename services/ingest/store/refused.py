"""The refused downloads as the API reads them, and the item for which one is released."""

from __future__ import annotations

from collections.abc import Sequence

from shared.db.pool import Connection, Row
from shared.db.refused_files import IN_USE
from shared.states import ACTIVE_STATUSES, values

_LIST = f"""
SELECT r.id, r.track_id, r.item_id, q.track_name, q.artist_name, q.album_name, r.torrent_title,
       r.info_hash, r.file, r.rule, r.reason, r.evidence, r.size_bytes,
       extract(epoch FROM r.kept_at)::bigint AS kept_at, r.released_by,
       extract(epoch FROM r.released_at)::bigint AS released_at, {IN_USE} AS in_use
  FROM refused_files r LEFT JOIN queue_items q ON q.id = r.item_id
 WHERE $1::text IS NULL OR r.track_id = $1
 ORDER BY r.kept_at DESC, r.id LIMIT $2 OFFSET $3
"""  # noqa: S608 (made of constants)

_TOTAL = "SELECT count(*) FROM refused_files WHERE $1::text IS NULL OR track_id = $1"

_SUM = "SELECT count(*) AS count, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM refused_files"

_TRACK = "SELECT track_id FROM refused_files WHERE id = $1"

# The active item, or else the last one.
_ITEMS = """
SELECT id, stage, status, error_type, ticket_id, released_file FROM queue_items
 WHERE track_id = $1
 ORDER BY status = ANY($2) DESC, seq DESC
 LIMIT 1
   FOR NO KEY UPDATE
"""

_LOCK = f"""
SELECT r.id, r.track_id, r.ticket_id, r.file, r.rule, r.reason, r.released_by, {IN_USE} AS in_use
  FROM refused_files r WHERE r.id = $1
   FOR NO KEY UPDATE OF r
"""  # noqa: S608 (made of constants)

_RELEASED_BY = "UPDATE refused_files SET released_by = $2, released_at = now() WHERE id = $1"


async def page(
    connection: Connection, track_id: str | None, *, limit: int, offset: int
) -> tuple[Sequence[Row], int]:
    """The refused downloads of a track, or of all, newest first, and how many there are."""
    total: int = await connection.fetchval(_TOTAL, track_id)
    return await connection.fetch(_LIST, track_id, limit, offset), total


async def totals(connection: Connection) -> Row:
    """How many there are, and their bytes."""
    row = await connection.fetchrow(_SUM)
    assert row is not None, "a select of sums has a row"
    return row


async def item_of(connection: Connection, file_id: str) -> Row | None:
    """The item of the file's track, locked: the active one, or else the last one.

    Lock it before the file: so does the fetcher-writer.
    """
    track_id = await connection.fetchval(_TRACK, file_id)
    return await connection.fetchrow(_ITEMS, track_id, values(ACTIVE_STATUSES))


async def lock(connection: Connection, file_id: str) -> Row | None:
    """The file's row, locked, and whether it is being collected."""
    return await connection.fetchrow(_LOCK, file_id)


async def note_release(connection: Connection, file_id: str, *, by: str) -> None:
    """Note who has released it."""
    await connection.execute(_RELEASED_BY, file_id, by)
