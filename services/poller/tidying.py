"""What is left at Torrentino of tickets that are done with: removed as TORRENTINO_CLEANUP says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import structlog

from services.poller.sources import Sources
from shared.crashpoints import reached
from shared.db.pool import Database
from shared.errors import OutcomeUnknown, Refused
from shared.torrentino.client import TorrentinoClient

log = structlog.get_logger()

_MOST = 50

# Nothing of it is needed any more: its folder is done with, and no item is or may be served by it.
_TO_TIDY = """
SELECT t.id, t.torrentino_id, t.info_hash FROM tickets t
 WHERE t.state = 'closed' AND t.tidied_at IS NULL AND t.collected_at IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id
                      AND q.stage IN ('ready', 'fetching', 'held', 'verifying', 'converting'))
 ORDER BY t.closed_at
 LIMIT $1
"""

_TIDIED = """
UPDATE tickets SET tidied_at = now()
 WHERE id = $1 AND state = 'closed' AND tidied_at IS NULL
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A ticket that is done with."""

    id: str
    torrentino_id: str | None
    info_hash: str | None


class Tidier:
    """Removes tickets, and with `torrent` their torrents, that no ticket of ours needs.

    A torrent that somebody else's ticket uses at the same Torrentino is not known to be shared:
    with `torrent` it goes all the same.
    """

    def __init__(
        self,
        database: Database,
        client: TorrentinoClient,
        sources: Sources,
        *,
        policy: Literal["keep", "ticket", "torrent"],
    ) -> None:
        self._database = database
        self._client = client
        self._sources = sources
        self._policy = policy

    async def run_once(self) -> int:
        """Clean up after at most 50 tickets; returns how many are done.

        Raises:
            Hold: Torrentino does not answer; what is left is cleaned up later.
        """
        done = 0
        for ticket in await self._to_tidy():
            if self._policy == "keep" or await self._remove(ticket):
                await self._note(ticket)
                done += 1
        return done

    async def _to_tidy(self) -> list[Done]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_TO_TIDY, _MOST)
        return [
            Done(id=r["id"], torrentino_id=r["torrentino_id"], info_hash=r["info_hash"])
            for r in rows
        ]

    async def _note(self, ticket: Done) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_TIDIED, ticket.id)
        reached("tidying.noted")

    async def _remove(self, ticket: Done) -> bool:
        """Whether nothing is left to do; each effect may be repeated."""
        try:
            if self._policy == "torrent" and ticket.info_hash:
                await self._remove_torrent(ticket.info_hash, ticket.id)
            if ticket.torrentino_id is not None:
                await self._client.delete_ticket(ticket.torrentino_id)
                reached("tidying.ticket_removed")
        except OutcomeUnknown as error:
            log.info("tidying_unsettled", ticket=ticket.torrentino_id, detail=str(error))
            return False
        except Refused as error:
            log.warning("not_tidied", ticket=ticket.torrentino_id, detail=str(error))
        return True

    async def _remove_torrent(self, info_hash: str, ticket_id: str) -> None:
        if await self._sources.is_needed(info_hash, but=ticket_id):
            # The last of its tickets takes it along.
            return
        await self._client.remove_torrent(info_hash, delete_files=True)
        reached("tidying.torrent_removed")
