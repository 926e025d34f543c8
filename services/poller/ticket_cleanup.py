"""What is left at Torrentino of tickets that are done with.

Removed as TORRENTINO_CLEANUP says at once, and the ticket after TICKET_KEEP_DAYS in any case:
Torrentino forgets none by itself, and its list is read as a whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from services.poller.own_faults import Pauses
from shared.acquisition.removal import Case, Ground, Removal, Standing
from shared.crashpoints import reached
from shared.db.pool import Database
from shared.errors import Conflict, OutcomeUnknown, Refused
from shared.states import COLLECTING, DownloadState, in_sql

log = structlog.get_logger()

_MOST = 50

# Nothing of it is needed any more: its folder is done with, and no item is or may be served by it.
_TO_TIDY = f"""
SELECT t.id, t.torrentino_id, t.info_hash FROM tickets t
 WHERE t.state = '{DownloadState.CLOSED}' AND t.way = 'tickets' AND t.tidied_at IS NULL
   AND t.collected_at IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id
                      AND q.stage IN ({in_sql(COLLECTING)}))
 ORDER BY t.closed_at
 LIMIT $1
"""  # noqa: S608 (made of constants)

_TIDIED = f"""
UPDATE tickets
   SET tidied_at = now(), ticket_deleted_at = CASE WHEN $2 THEN now() ELSE ticket_deleted_at END
 WHERE id = $1 AND state = '{DownloadState.CLOSED}' AND tidied_at IS NULL
"""  # noqa: S608 (made of constants)

# Also those that were left there on purpose, and those that ended before there was a policy.
_TO_DELETE = f"""
SELECT t.id, t.torrentino_id, t.info_hash FROM tickets t
 WHERE t.state = '{DownloadState.CLOSED}' AND t.way = 'tickets' AND t.ticket_deleted_at IS NULL
   AND t.torrentino_id IS NOT NULL AND t.tidied_at IS NOT NULL AND t.collected_at IS NOT NULL
   AND t.closed_at <= now() - make_interval(days => $2)
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id
                      AND q.stage IN ({in_sql(COLLECTING)}))
 ORDER BY t.closed_at
 LIMIT $1
"""  # noqa: S608 (made of constants)

_DELETED = f"""
UPDATE tickets SET ticket_deleted_at = now()
 WHERE id = $1 AND state = '{DownloadState.CLOSED}' AND ticket_deleted_at IS NULL
"""  # noqa: S608 (made of constants)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A ticket that is done with."""

    id: str
    torrentino_id: str | None
    info_hash: str | None


class Tidier:
    """Removes tickets, and with `torrent` their torrents.

    A torrent that another ticket follows is left to it: our last ticket of it takes it along, and
    another user's ticket keeps it.
    """

    def __init__(
        self,
        database: Database,
        removal: Removal,
        *,
        policy: Literal["keep", "ticket", "torrent"],
        keep_days: int,
    ) -> None:
        self._database = database
        self._removal = removal
        self._policy = policy
        self._keep_days = keep_days
        self._pauses = Pauses()

    async def run_once(self) -> int:
        """Clean up after at most 50 tickets, and delete at most 50; returns how many are done.

        Raises:
            Unavailable: Torrentino does not answer; what is left is cleaned up later.
        """
        done = 0
        for ticket in await self._found(_TO_TIDY, _MOST):
            if self._policy == "keep" or await self._alone(ticket, self._remove):
                await self._note(_TIDIED, ticket.id, self._policy != "keep")
                done += 1
        return done + await self._delete_old()

    async def _delete_old(self) -> int:
        done = 0
        for ticket in await self._found(_TO_DELETE, _MOST, self._keep_days):
            if await self._alone(ticket, self._delete):
                await self._note(_DELETED, ticket.id)
                done += 1
        return done

    async def _alone(self, ticket: Done, act: Callable[[Done], Awaitable[bool]]) -> bool:
        return await self._pauses.alone(ticket.id, lambda: act(ticket), works=self._removal.works)

    async def _found(self, sql: str, *args: object) -> list[Done]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql, *args)
        return [
            Done(id=r["id"], torrentino_id=r["torrentino_id"], info_hash=r["info_hash"])
            for r in rows
        ]

    async def _note(self, sql: str, *args: object) -> None:
        async with self._database.connection() as connection:
            await connection.execute(sql, *args)
        reached("tidying.noted")

    async def _remove(self, ticket: Done) -> bool:
        """Whether nothing is left to do; each effect may be repeated."""
        try:
            if self._policy == "torrent" and ticket.info_hash:
                await self._remove_torrent(ticket.info_hash, ticket)
        except (OutcomeUnknown, Conflict) as error:
            log.info("tidying_unsettled", ticket=ticket.torrentino_id, detail=str(error))
            return False
        except Refused as error:
            log.warning("not_tidied", info_hash=ticket.info_hash, detail=str(error))
        return await self._delete(ticket)

    async def _delete(self, ticket: Done) -> bool:
        """Whether there is no such ticket any more, or there will always be one."""
        try:
            if ticket.torrentino_id is not None:
                await self._removal.ticket(ticket.torrentino_id)
                reached("tidying.ticket_removed")
        except OutcomeUnknown as error:
            log.info("tidying_unsettled", ticket=ticket.torrentino_id, detail=str(error))
            return False
        except Refused as error:
            log.warning("not_tidied", ticket=ticket.torrentino_id, detail=str(error))
        return True

    async def _remove_torrent(self, info_hash: str, ticket: Done) -> None:
        """One that another of our tickets needs is removed with the last of them."""
        case = Case(
            info_hash=info_hash,
            ground=Ground.COLLECTED,
            mode="tickets",
            download_id=ticket.id,
            ticket_id=ticket.torrentino_id,
        )
        if await self._removal.torrent(case) is Standing.FREE:
            reached("tidying.torrent_removed")
