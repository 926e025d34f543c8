"""How many of the placed files the catalog names and its server plays, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.db.pool import Connection

_COUNTS = """
SELECT count(*) AS placed, count(published_at) AS published, count(playable_at) AS playable
  FROM media_files
"""

_REASONS = """
SELECT CASE WHEN not_playable IS NOT NULL THEN not_playable
            WHEN published_at IS NULL THEN $1
            ELSE $2
       END AS reason,
       count(*) AS count
  FROM media_files WHERE playable_at IS NULL
 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $3
"""

NOT_PUBLISHED = "not published: only the bridge writes to the catalog (BRIDGE_CATALOG_WRITE)"
NOT_CONFIRMED = "published, and not confirmed: only the bridge asks the server (CATALOG_SERVER_URL)"
_MOST_REASONS = 20


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Counts of the ledger, and of each reason why a file is not known to play."""

    placed: int
    published: int
    playable: int
    reasons: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "placed": self.placed,
            "published": self.published,
            "playable": self.playable,
            "not_playable": [
                {"reason": reason, "count": count} for reason, count in self.reasons.items()
            ],
        }


async def publication(connection: Connection) -> Publication:
    """Count them."""
    counts = await connection.fetchrow(_COUNTS)
    assert counts is not None, "a select of counts has a row"
    reasons = await connection.fetch(_REASONS, NOT_PUBLISHED, NOT_CONFIRMED, _MOST_REASONS)
    return Publication(**counts, reasons={row["reason"]: row["count"] for row in reasons})
