"""Turns: items of one priority are served user by user, however many one user asks for.

What waits is ordered by (priority, turn, seq). An item gets the next turn of its user whenever it
begins to wait: on arrival, after a failed attempt, and when its album is asked for by track. The
next turn is one after the user's last waiting one, and not before the turn that was served last.
So a user who has nothing waiting is next, behind at most one turn of each other user, and what is
old is overtaken by no one for long. Items that one ticket serves share a turn. An item that is
handed back without an attempt keeps its turn.

`next_turn` and `turn_of_album` are functions of the database, as moves use them.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.catalog.models import Track
from shared.db.pool import Connection

# Of scans, and of requests without a user.
NOBODY = ""

_SERVED = "UPDATE turns SET served = greatest(served, $2) WHERE priority = $1 AND served < $2"


def places(tracks: Sequence[Track], *, apart: bool) -> list[int]:
    """How many turns after the first one of a request each of its tracks is.

    The tracks of one album share a turn, unless each gets a ticket of its own (`apart`).
    """
    seen: dict[str, int] = {}
    return [
        seen.setdefault(track.id if apart or not track.album_id else track.album_id, len(seen))
        for track in tracks
    ]


async def served(connection: Connection, priority: int, turn: int) -> None:
    """Note that a download of this turn has been started."""
    await connection.execute(_SERVED, priority, turn)
