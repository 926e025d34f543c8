"""The blocked sources, of both acquisition modes, as the API reads and lifts them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from services.ingest.store import ACTOR
from shared.db.pool import Connection, Row
from shared.states import WAITING, values

# A torrent is blocked by its hash, in either mode; a release by its title and size. A block of
# both tables is shown once.
_BLOCKS = """
SELECT b.track_id, b.info_hash AS source, b.info_hash, NULL AS release_key,
       CASE WHEN b.lacks THEN 'lacks' ELSE 'wrong' END AS why, b.reason, b.evidence, b.item_id, b.at
  FROM bad_sources b
UNION ALL
SELECT l.track_id, l.release_key AS source, l.info_hash, l.release_key, l.why, l.reason,
       l.evidence, l.item_id, l.at
  FROM blocklist l
 WHERE NOT EXISTS (SELECT 1 FROM bad_sources b
                    WHERE b.track_id = l.track_id AND b.info_hash = l.info_hash)
"""

_WANTED = "($1::text IS NULL OR x.track_id = $1)"

_LIST = f"""
SELECT x.track_id, q.track_name, q.artist_name, x.source, x.info_hash, x.release_key, x.why,
       x.reason, x.evidence, x.item_id, extract(epoch FROM x.at)::bigint AS blocked_at,
       (SELECT t.torrent_title FROM tickets t
         WHERE t.info_hash = x.info_hash AND t.torrent_title IS NOT NULL LIMIT 1) AS release
  FROM ({_BLOCKS}) x LEFT JOIN queue_items q ON q.id = x.item_id
 WHERE {_WANTED}
 ORDER BY x.at DESC, x.track_id, x.source LIMIT $2 OFFSET $3
"""  # noqa: S608 (made of constants)

_TOTAL = f"SELECT count(*) FROM ({_BLOCKS}) x WHERE {_WANTED}"  # noqa: S608 (made of constants)

# By its hash also the releases that are known to be this torrent.
_LIFT_TORRENT = """
DELETE FROM bad_sources
 WHERE info_hash = ANY($1) AND ($2::text IS NULL OR track_id = $2)
RETURNING track_id
"""
_LIFT_RELEASE = """
DELETE FROM blocklist
 WHERE (release_key = ANY($1) OR info_hash = ANY($1)) AND ($2::text IS NULL OR track_id = $2)
RETURNING track_id
"""
_HASHES = """
SELECT DISTINCT info_hash FROM blocklist
 WHERE release_key = $1 AND info_hash IS NOT NULL AND ($2::text IS NULL OR track_id = $2)
"""

# The last item of each track; locked in the order of the track ids.
_LAST_ITEMS = """
SELECT q.id, q.track_id, q.album_id, q.stage FROM queue_items q
 WHERE q.id IN (SELECT DISTINCT ON (track_id) id FROM queue_items
                 WHERE track_id = ANY($1) ORDER BY track_id, seq DESC)
 ORDER BY q.track_id
   FOR NO KEY UPDATE
"""

# No move: it stays in its stage.
_HASTEN = """
UPDATE queue_items SET due_at = now(), wait_s = 0, reason = $2, actor = $3, updated_at = now()
 WHERE id = ANY($1) AND stage = ANY($4) AND due_at > now()
"""


async def page(
    connection: Connection, track_id: str | None, *, limit: int, offset: int
) -> tuple[Sequence[Row], int]:
    """The blocks of a track, or all, newest first, and how many there are."""
    total: int = await connection.fetchval(_TOTAL, track_id)
    return await connection.fetch(_LIST, track_id, limit, offset), total


async def lift(connection: Connection, source: str, track_id: str | None) -> list[str]:
    """Delete the blocks of a torrent or release, for a track or all; the ids of the tracks."""
    hashes = await connection.fetch(_HASHES, source, track_id)
    names = [source, *(row["info_hash"] for row in hashes)]
    rows = [
        *await connection.fetch(_LIFT_TORRENT, names, track_id),
        *await connection.fetch(_LIFT_RELEASE, names, track_id),
    ]
    return sorted({row["track_id"] for row in rows})


async def last_items(connection: Connection, track_ids: Collection[str]) -> Sequence[Row]:
    """The last item of each of these tracks that has one, locked."""
    return await connection.fetch(_LAST_ITEMS, list(track_ids))


async def hasten(connection: Connection, item_ids: Collection[str], *, reason: str) -> None:
    """Make those due now that wait for a ticketer."""
    await connection.execute(_HASTEN, list(item_ids), reason, ACTOR, values(WAITING))
