"""The sweep for tickets in our folder that live at Torrentino and serve no item."""

from __future__ import annotations

import structlog

from services.poller.store import Store
from shared.acquisition.removal import Removal
from shared.acquisition.tickets import Tickets, begun_of
from shared.crashpoints import reached
from shared.errors import Unavailable
from shared.health import Health
from shared.torrentino.model import RemoteTicket

log = structlog.get_logger()


class StraySweep:
    """Cancels tickets of creations that were found too late, and tickets that came back to life."""

    def __init__(self, store: Store, tickets: Tickets, removal: Removal, health: Health) -> None:
        self._store = store
        self._removal = removal
        self._tickets = tickets
        self._health = health

    async def run_once(self) -> int:
        """Withdraw tickets whose items have all ended, and cancel strays; returns 0.

        Raises:
            Unavailable: Torrentino, its torrent client or PostgreSQL is away.
        """
        orphans = await self._store.withdraw_orphans()
        if orphans:
            log.warning("tickets_without_items", count=orphans)
        reached("poller.orphans")
        strays = await self._strays()
        self._health.up("torrentino")
        for stray in strays:
            log.warning("stray_ticket", ticket=stray.id, dest_path=stray.dest_path)
            if not await self._store.reopen(stray):
                await self._end(stray)
        return 0

    async def _end(self, stray: RemoteTicket) -> None:
        """Cancel it; one that fails alone waits for the next sweep, and stops no other."""
        try:
            await cancel(self._tickets, stray, reason="a ticket that no item waits for")
        except Unavailable as away:
            if not await self._removal.works(away.dependency):
                raise
            log.warning("stray_not_ended", ticket=stray.id, detail=str(away))

    async def _strays(self) -> list[RemoteTicket]:
        """Live tickets in our folder that belong to none of our open rows."""
        living = await self._tickets.living()
        # The rows are read after the list, so that a ticket made in between is not a stray.
        known = await self._store.known({remote.dest_path for remote in living})
        return [
            remote
            for remote in living
            if (row := known.get(remote.dest_path)) is not None
            and (
                row["state"] == "closed"
                or (row["state"] == "open" and row["torrentino_id"] != remote.id)
            )
        ]


async def cancel(
    tickets: Tickets, remote: RemoteTicket, *, reason: str, ticket_id: str = ""
) -> None:
    """Cancel once, with the torrent where `Removal` lets it go; what came of it shows later.

    `ticket_id` is ours, where we have a row of it.
    """
    await tickets.give_up([begun_of(remote, id_=ticket_id)], reason=reason, with_data=True)
