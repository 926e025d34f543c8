"""Releases that are refused for a track, until an administrator retries it.

By hash, and by title and size: the same release comes again from another indexer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shared.choosing.selection import Blocked
from shared.db.pool import Connection, Row

# `wrong`: another recording, or broken · `lacks`: without the track · `stalled`: it did not
# arrive · `refused`: the torrent client did not add it.
Why: TypeAlias = Literal["wrong", "lacks", "stalled", "refused"]

# For ever, and for a time. A stalled release may be tried again when no other is left: it may have
# seeders by then.
_FOR_EVER = ("wrong", "lacks")
_HARD = (*_FOR_EVER, "refused")
_FOR_A_TIME = "1 day"

# `wrong` is never replaced by another reason.
_BLOCK = """
INSERT INTO blocklist (track_id, release_key, info_hash, why, reason, item_id, told, evidence)
SELECT q.track_id, t.release_key, t.info_hash, $2, $3, q.id, $4, $5
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.id = ANY($1) AND t.release_key IS NOT NULL
ON CONFLICT (track_id, release_key) DO UPDATE
   SET info_hash = coalesce(excluded.info_hash, blocklist.info_hash),
       why = CASE WHEN blocklist.why = 'wrong' THEN 'wrong' ELSE excluded.why END,
       reason = excluded.reason, item_id = excluded.item_id, at = now(),
       evidence = excluded.evidence,
       told = CASE WHEN blocklist.why = 'wrong' THEN blocklist.told ELSE excluded.told END
"""

_BLOCKED = f"""
SELECT track_id, release_key, info_hash, why = ANY($2) AS hard
  FROM blocklist
 WHERE track_id = ANY($1) AND (why = ANY($3) OR at > now() - interval '{_FOR_A_TIME}')
"""  # noqa: S608 (made of constants)

_UNBLOCK = "DELETE FROM blocklist WHERE track_id = $1"


async def block(
    connection: Connection,
    item_ids: Collection[str],
    *,
    why: Why,
    reason: str,
    told: str | None = None,
    evidence: Mapping[str, object] | None = None,
) -> None:
    """Block the release of the items' download for their tracks.

    Call it in the transaction that moves them on, while they are locked.
    """
    measured = dict(evidence) if evidence else None
    await connection.execute(_BLOCK, list(item_ids), why, reason[:1000], told, measured)


@dataclass(frozen=True, kw_only=True)
class OfTrack:
    """What is blocked for one track: `hard` for now at least, `soft` because it did not arrive."""

    hard: Blocked
    soft: Blocked


async def blocked(connection: Connection, track_ids: Collection[str]) -> dict[str, OfTrack]:
    """What is blocked for each of these tracks."""
    rows = await connection.fetch(_BLOCKED, list(track_ids), list(_HARD), list(_FOR_EVER))
    by_track: dict[str, list[Row]] = {track_id: [] for track_id in track_ids}
    for row in rows:
        by_track[row["track_id"]].append(row)
    return {
        track_id: OfTrack(
            hard=_blocked([row for row in found if row["hard"]]),
            soft=_blocked([row for row in found if not row["hard"]]),
        )
        for track_id, found in by_track.items()
    }


async def unblock(connection: Connection, track_id: str) -> None:
    """Remove all blocks of the track."""
    await connection.execute(_UNBLOCK, track_id)


def _blocked(rows: Collection[Row]) -> Blocked:
    return Blocked(
        keys=frozenset(row["release_key"] for row in rows),
        info_hashes=frozenset(row["info_hash"] for row in rows if row["info_hash"]),
    )
