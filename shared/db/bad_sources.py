"""Blocked torrents: they gave broken audio for a track, or lack it, and are refused for it.

Until an administrator retries the item.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.db.pool import Connection
from shared.db.refusals import LACKS, told
from shared.errors import AttemptFailed, ErrorType
from shared.remedies import explained

_BLOCK = """
INSERT INTO bad_sources AS b (track_id, info_hash, reason, item_id, whole, told, evidence)
SELECT q.track_id, t.info_hash, $2, q.id, $3, $4, $5
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.id = $1 AND t.info_hash IS NOT NULL
ON CONFLICT (track_id, info_hash) DO UPDATE
   SET reason = excluded.reason, told = excluded.told, evidence = excluded.evidence,
       item_id = excluded.item_id, at = now(),
       removed_at = NULL, lacks = false, whole = excluded.whole AND (b.whole OR b.lacks)
"""

# A torrent that was broken stays so, also if it lacks the track.
_LACKS = """
INSERT INTO bad_sources (track_id, info_hash, reason, item_id, told, evidence, lacks)
SELECT q.track_id, t.info_hash, $2, q.id, $3, $4, true
  FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.id = $1 AND t.info_hash IS NOT NULL
ON CONFLICT (track_id, info_hash) DO NOTHING
"""

# The rule of the verification that a whole file with another recording breaks.
OTHER_LENGTH = "wrong_length"

_UNBLOCK = "DELETE FROM bad_sources WHERE track_id = $1"


async def block_source(connection: Connection, item_id: str, failure: AttemptFailed) -> None:
    """After a corruption, block the torrent of the item's ticket, if it is known.

    Call it in the transaction that ends the attempt, while the item is locked.
    """
    if failure.error_type is ErrorType.CORRUPTION:
        whole = failure.evidence.get("rule") == OTHER_LENGTH
        await connection.execute(
            _BLOCK, item_id, explained(failure), whole, told(failure), failure.evidence
        )


async def lacks_source(
    connection: Connection,
    item_id: str,
    reason: str,
    *,
    told: str = LACKS,
    evidence: Mapping[str, object] | None = None,
) -> None:
    """Block the torrent of the item's ticket, if it is known, because it lacks the track.

    Call it in the transaction that moves the item on, while it is locked.
    """
    measured = dict(evidence) if evidence else None
    await connection.execute(_LACKS, item_id, reason, told, measured)


async def unblock_sources(connection: Connection, track_id: str) -> None:
    """Remove all blocks of the track."""
    await connection.execute(_UNBLOCK, track_id)
