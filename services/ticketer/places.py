"""The places of downloads at Torrentino, and for whom some of them stay free.

A fifth of the places, at least four and at most half of them, is never taken for the background, so
that a user does not wait for the stalled torrents of a scan. While two users wait, none of them
takes the last place beside all others. A single place is taken by what is next; a user who comes
later waits for its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Row
from shared.db.turns import NOBODY
from shared.states import (
    LIVE_DOWNLOADS,
    SERVING_DOWNLOADS,
    TERMINAL,
    WAITING,
    DownloadState,
    in_sql,
)

# The priority from which on no user waits for an item.
BACKGROUND = 3

# By the items that wait for it: whose it is (two texts that differ: of several users), and how
# urgent. One that is being withdrawn keeps its place, and is no one's.
_OF_ITEMS = f"""
       min(q.priority) AS priority, min(q.turn_of) AS first_user, max(q.turn_of) AS last_user
  FROM tickets t
  LEFT JOIN queue_items q ON q.ticket_id = t.id AND q.stage NOT IN ({in_sql(TERMINAL)})
"""

# A ticket that waits for approval keeps no place, up to ten times as many as there are places:
# Torrentino does nothing for it, but the poller reads every one.
_TICKETS = f"""
SELECT coalesce(t.state = '{DownloadState.OPEN}' AND t.remote_state = 'needs_approval', false)
           AS undecided,
{_OF_ITEMS}
 WHERE t.way = 'tickets' AND t.state IN ({in_sql(LIVE_DOWNLOADS)})
 GROUP BY t.id
"""

# Several downloads of one torrent keep one place.
_TORRENTS = f"""
SELECT false AS undecided,
{_OF_ITEMS}
 WHERE t.way = 'direct' AND t.state IN ({in_sql(SERVING_DOWNLOADS)})
 GROUP BY coalesce(t.info_hash, t.id)
"""

# Whether two users wait: the first user, another one, and what is no one's. Each probe is one entry
# of `queue_items_turns_of`, whatever the backlog.
_FIRST = f"""
SELECT turn_of FROM queue_items
 WHERE stage IN ({in_sql(WAITING)}) AND turn_of {{}} AND priority < $2 AND due_at <= now()
 ORDER BY turn_of, priority, turn LIMIT 1
"""  # noqa: S608 (made of constants)
CONTESTED = f"""
WITH first AS MATERIALIZED ({_FIRST.format("> $1")})
SELECT EXISTS (SELECT 1 FROM first)
   AND (({_FIRST.format("= $1")}) IS NOT NULL
        OR ({_FIRST.format("> (SELECT turn_of FROM first)")}) IS NOT NULL)
"""  # noqa: S608 (made of constants)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place that is taken. `user` is None where it is no one's, or several users'."""

    user: str | None
    background: bool


def kept_for_users(most: int) -> int:
    """How many of the places the background never takes."""
    return min(most // 2, max(4, most // 5))


class Places:
    """The places that one claim may take."""

    def __init__(
        self, most: int, taken: Iterable[Place], *, contested: bool, undecided: int = 0
    ) -> None:
        places = list(taken)
        users = Counter(each.user for each in places if each.user is not None)
        self.free = most - len(places) - max(0, undecided - 10 * most)
        self._background = most - kept_for_users(most) - sum(each.background for each in places)
        self._contested = contested and most > 1
        self._most_of_one = most - 1
        self._users = users

    @property
    def least_urgent(self) -> int:
        """The priority of the least urgent items that may be taken."""
        return BACKGROUND if self._background > 0 else BACKGROUND - 1

    @property
    def full_for(self) -> str | None:
        """The user who may not take the last place, because another user waits."""
        if not self._contested:
            return None
        return next((user for user, n in self._users.items() if n >= self._most_of_one), None)

    def may_take(self, priority: int, user: str) -> bool:
        """Whether a place may be taken for an item."""
        return self.free > 0 and priority <= self.least_urgent and user != self.full_for

    def take(self, priority: int, user: str) -> None:
        """Take one."""
        self.free -= 1
        self._background -= priority >= BACKGROUND
        self._users[user] += 1


async def ticket_places(connection: Connection, most: int) -> Places:
    """Of MAX_TICKETS_IN_FLIGHT."""
    rows = await connection.fetch(_TICKETS)
    undecided = sum(row["undecided"] for row in rows)
    return Places(
        most,
        [_place(row) for row in rows if not row["undecided"]],
        contested=await _contested(connection),
        undecided=undecided,
    )


async def torrent_places(connection: Connection, most: int) -> Places:
    """Of MAX_DOWNLOADS."""
    rows = await connection.fetch(_TORRENTS)
    return Places(most, [_place(row) for row in rows], contested=await _contested(connection))


async def _contested(connection: Connection) -> bool:
    await connection.execute(IN_INDEX_ORDER)
    contested = await connection.fetchval(CONTESTED, NOBODY, BACKGROUND)
    await connection.execute(IN_ANY_ORDER)
    return bool(contested)


def _place(row: Row) -> Place:
    alone = row["first_user"] if row["first_user"] == row["last_user"] else None
    background = row["priority"] is not None and row["priority"] >= BACKGROUND
    return Place(user=None if background and alone == NOBODY else alone, background=background)
