"""The refused downloads that are kept: which files there are, and why each was refused.

The files are `shared.media.refused.kept_file`. A row without a file, or a file without a row, is
what a crash leaves: the reaper removes the file, and a release finds that there is none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from shared.db.pool import Connection
from shared.states import COLLECTING, in_sql


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """A file that was moved to the kept ones; `file` is its path in the torrent."""

    id: str
    file: str
    rule: str
    reason: str
    evidence: Mapping[str, object]
    size_bytes: int


# It is being collected for the item for which it was released.
IN_USE = f"""
EXISTS (SELECT 1 FROM queue_items u
         WHERE u.released_file = r.id AND u.stage IN ({in_sql(COLLECTING)}))
"""  # noqa: S608 (made of constants)

# The same file of the same torrent, refused again, replaces the one before.
_REPLACE = f"""
DELETE FROM refused_files r
 USING queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.id = $1 AND r.track_id = q.track_id AND r.file = $2
   AND coalesce(r.info_hash, r.ticket_id) = coalesce(t.info_hash, t.id) AND NOT {IN_USE}
"""  # noqa: S608 (made of constants)

_KEEP = """
INSERT INTO refused_files (id, track_id, item_id, ticket_id, info_hash, torrent_title, file, rule,
                           reason, evidence, size_bytes)
SELECT $2, q.track_id, q.id, t.id, t.info_hash, t.torrent_title, $3, $4, $5, $6, $7
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.id = $1
"""

_FORGET = "DELETE FROM refused_files WHERE id = $1"

# $1: how long they are kept; $2: how many bytes all have at most, the newest first.
_EXPIRE = f"""
DELETE FROM refused_files r
 USING (SELECT id, kept_at, sum(size_bytes) OVER (ORDER BY kept_at DESC, id) AS total_bytes
          FROM refused_files) s
 WHERE s.id = r.id AND (s.kept_at < now() - make_interval(secs => $1) OR s.total_bytes > $2)
   AND NOT {IN_USE}
"""  # noqa: S608 (made of constants)

_KNOWN = "SELECT id FROM refused_files WHERE id = ANY($1)"


async def keep(connection: Connection, item_id: str, refused: RefusedFile) -> None:
    """Record the file for the item's track and download.

    Call it in the transaction that ends the attempt, while the item is locked.
    """
    await connection.execute(_REPLACE, item_id, refused.file)
    await connection.execute(
        _KEEP,
        item_id,
        refused.id,
        refused.file,
        refused.rule,
        refused.reason,
        dict(refused.evidence),
        refused.size_bytes,
    )


async def forget(connection: Connection, file_id: str) -> None:
    """The file is placed, or is gone."""
    await connection.execute(_FORGET, file_id)


async def expire(connection: Connection, *, older_than_s: float, keep_bytes: int) -> int:
    """Delete the rows that are over age, and the oldest beyond the size; returns how many.

    What is being collected stays.
    """
    done: str = await connection.execute(_EXPIRE, older_than_s, keep_bytes)
    return int(done.rsplit(maxsplit=1)[-1])


async def known(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of these ids that have a row."""
    rows = await connection.fetch(_KNOWN, list(ids))
    return {row["id"] for row in rows}
