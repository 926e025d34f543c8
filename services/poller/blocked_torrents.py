"""Blocked torrents: refused under a living ticket, and taken out of Torrentino's client.

A torrent from which a file was placed keeps seeding, and so does one that only lacks tracks, that
was there before us, that another ticket at Torrentino follows, or that is a direct download of
this installation as well.
"""

from __future__ import annotations

from functools import partial

import structlog

from services.poller.own_faults import Pauses
from services.poller.removal_rules import NEEDED, SEEDED, RemovalRules
from services.poller.store import OpenTicket
from shared.acquisition.removal import Case, Ground, Removal, Standing
from shared.db.pool import Connection, Database
from shared.errors import Conflict, OutcomeUnknown, Refused
from shared.states import DownloadState

log = structlog.get_logger()

# It stays for ever, also when the item that it served is forgotten.
_KEEP_SEEDED = f"""
UPDATE bad_sources b SET removed_at = now()
 WHERE b.removed_at IS NULL AND NOT b.lacks AND {SEEDED.format(hash="b.info_hash")}
"""  # noqa: S608 made of constants

# What we download directly has its own rules for what is removed. $1: also what is whole, and has
# another recording.
_BAD_TORRENTS = f"""
SELECT DISTINCT b.info_hash FROM bad_sources b
 WHERE b.removed_at IS NULL AND NOT b.lacks AND ($1 OR NOT b.whole)
   AND NOT {NEEDED.format(hash="b.info_hash", but="''")}
   AND NOT EXISTS (SELECT 1 FROM tickets d
                    WHERE d.info_hash = b.info_hash AND d.way = 'direct')
 LIMIT 20
"""  # noqa: S608 made of constants

_BAD_TORRENT_SETTLED = """
UPDATE bad_sources SET removed_at = now() WHERE info_hash = $1 AND removed_at IS NULL
"""

# What is downloaded next is another torrent, of which nothing has been seen yet.
_FORGET_SOURCE = f"""
UPDATE tickets SET info_hash = NULL, torrent_title = NULL, file_mappings = NULL
 WHERE id = $1 AND state = '{DownloadState.OPEN}'
"""  # noqa: S608 (made of constants)


class BlockedTorrents:
    """Removes those that are blocked, where `Removal` lets them go."""

    def __init__(self, database: Database, removal: Removal, rules: RemovalRules) -> None:
        self.removal = removal
        self._database = database
        self._rules = rules
        self._pauses = Pauses()

    async def may_refuse(self, info_hash: str, *, ticket: OpenTicket) -> bool:
        """Whether a blocked torrent may be removed from under this ticket.

        Raises:
            Conflict: it is being added or removed just now.
            Unavailable: Torrentino, or its torrent client, does not answer.
        """
        return await self.removal.may_go(_refusal(info_hash, ticket))

    async def forget(self, connection: Connection, ticket: OpenTicket) -> None:
        """The ticket continues with another torrent than the one that was seen."""
        await connection.execute(_FORGET_SOURCE, ticket.id)

    async def refuse(self, ticket: OpenTicket, info_hash: str) -> None:
        """Remove the torrent under the living ticket: Torrentino then takes the next candidate."""
        try:
            await self.removal.torrent(_refusal(info_hash, ticket))
        except (OutcomeUnknown, Refused) as error:
            log.info("refusal_unsettled", ticket=ticket.torrentino_id, detail=str(error))

    async def remove_all(self) -> None:
        """Take blocked torrents out of the client, so that no ticket finds one downloaded there.

        Raises:
            Unavailable: Torrentino, its torrent client or PostgreSQL does not answer.
        """
        async with self._database.connection() as connection:
            await connection.execute(_KEEP_SEEDED)
            rows = await connection.fetch(_BAD_TORRENTS, self._rules.removes_whole)
        for row in rows:
            info_hash = row["info_hash"]
            if await self._pauses.alone(
                info_hash, partial(self._is_settled, info_hash), works=self.removal.works
            ):
                async with self._database.connection() as connection:
                    await connection.execute(_BAD_TORRENT_SETTLED, info_hash)

    async def _is_settled(self, info_hash: str) -> bool:
        """Whether it is out of the client, or stays there for good."""
        case = Case(info_hash=info_hash, ground=Ground.BAD, mode="tickets")
        try:
            return await self.removal.torrent(case) is not Standing.NEEDED
        except (OutcomeUnknown, Conflict) as error:
            log.info("removal_unsettled", info_hash=info_hash, detail=str(error))
            return False
        except Refused as error:
            log.warning("bad_torrent_stays", info_hash=info_hash, detail=str(error))
            return True


def _refusal(info_hash: str, ticket: OpenTicket) -> Case:
    # What is not blocked has a format that can never be placed: no item can use its download.
    return Case(
        info_hash=info_hash,
        ground=Ground.BAD if info_hash in ticket.blocked else Ground.UNWANTED,
        mode="tickets",
        download_id=ticket.id,
        ticket_id=ticket.torrentino_id,
    )
