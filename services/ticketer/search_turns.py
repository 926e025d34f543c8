"""The turns of searches: what may begin now, within the budget, and what is put off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.ticketer.places import BACKGROUND
from services.ticketer.wanted import Want
from shared.db import releases
from shared.db.pool import Connection, Row
from shared.db.releases import Budget, Missing, Turn
from shared.states import WAITING, DownloadState, Stage, in_sql

# What was not found is searched for again at once when a user asks for it on another day.
_ASKED_AGAIN_S = 86_400.0
_LEAST_WAIT_S = 1.0
_LOOKS_AGAIN_S = 10.0
# Results for the artist serve all of the artist's albums.
_ARTIST_WIDE = 3

# No move: what waits for its turn stays where it is.
_PUT_OFF = f"""
UPDATE queue_items q
   SET due_at = now() + make_interval(secs => d.wait_s), wait_s = d.wait_s, reason = d.reason,
       actor = 'ticketer', updated_at = now()
  FROM unnest($1::text[], $2::float8[], $3::text[]) AS d (item_id, wait_s, reason)
 WHERE q.id = d.item_id AND q.stage IN ({in_sql(WAITING)})
"""  # noqa: S608 (made of constants)

# Claimed, and nothing chosen yet.
_ABOUT_TO_SEARCH = f"""
SELECT count(*) FROM tickets t
 WHERE t.way = 'direct' AND t.state = '{DownloadState.INTENT}' AND t.release_key IS NULL
   AND EXISTS (SELECT 1 FROM queue_items q
                WHERE q.ticket_id = t.id AND q.stage IN ({in_sql([Stage.TICKETING])}))
"""  # noqa: S608 (made of constants)


@dataclass(frozen=True, kw_only=True)
class SearchLimits:
    """How often the indexers are asked, and for how long (in seconds) an answer is used."""

    budget: Budget
    ttl_s: float

    def ttl_of(self, want: Want, query: str) -> float:
        """For how long the answer to this query of it is used again, in seconds."""
        return self.ttl_s * (_ARTIST_WIDE if query in want.artist_wide else 1)


class SearchTurns:
    """Which of the due albums may begin now; the others are put off together."""

    def __init__(
        self,
        connection: Connection,
        limits: SearchLimits,
        *,
        searcher_wait_s: float,
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._searcher_wait_s = searcher_wait_s
        self._turns: dict[bool, Turn] = {}
        self._begun: int | None = None
        self._off: dict[str, tuple[float, str]] = {}

    async def may_begin(self, want: Want, members: Sequence[Row], priority: int) -> bool:
        """Whether a download for these items may be begun."""
        background = priority >= BACKGROUND
        lacking = (await releases.missing(self._connection, [want.memory])).get(want.memory)
        if lacking and lacking.left_s > 0 and (background or lacking.age_s < _ASKED_AGAIN_S):
            self._put_off(members, lacking.left_s, f"nothing was found: {lacking.told}")
            return False
        if await self._needs_no_search(want, since=since_of(lacking)):
            return True
        if self._searcher_wait_s > 0:
            self._put_off(members, self._searcher_wait_s, "waits: the indexers are away")
            return False
        if background not in self._turns:
            self._turns[background] = await releases.next_turn(
                self._connection, self._limits.budget, background=background
            )
        turn = self._turns[background]
        if self._begun is None:
            self._begun = await self._connection.fetchval(_ABOUT_TO_SEARCH)
        gap_s = self._limits.budget.gap_s
        # With a gap only one search may be made now; the next ones come one gap apart.
        wait_s = turn.wait_s + self._begun * gap_s
        if self._begun >= turn.left:
            # Soon those ahead of it have made theirs, or needed none.
            wait_s = max(wait_s, _LOOKS_AGAIN_S)
        if wait_s > 0:
            self._put_off(members, wait_s, "waits for its turn to search")
            self._begun += 1
            return False
        self._begun += 1
        return True

    async def _needs_no_search(self, want: Want, *, since: datetime | None) -> bool:
        first = want.queries[0]
        ttl_s = self._limits.ttl_of(want, first)
        return await releases.is_fresh(self._connection, first.casefold(), ttl_s=ttl_s, since=since)

    def _put_off(self, members: Sequence[Row], wait_s: float, reason: str) -> None:
        for row in members:
            self._off[row["id"]] = (max(wait_s, _LEAST_WAIT_S), reason[:500])

    async def put_off_the_others(self) -> None:
        """Let them be due when it is their turn."""
        if self._off:
            await self._connection.execute(
                _PUT_OFF,
                list(self._off),
                [wait_s for wait_s, _ in self._off.values()],
                [reason for _, reason in self._off.values()],
            )


def since_of(lacking: Missing | None) -> datetime | None:
    """From when on an answer is news; asked on another day, from now on."""
    if lacking is None:
        return None
    return lacking.until if lacking.left_s <= 0 else lacking.at
