"""Which torrents are needed, and which are taken out of Torrentino's client.

A torrent from which a file was placed keeps seeding, and so does one that only lacks tracks, that
another ticket at Torrentino follows, or that we download directly as well.
"""

from __future__ import annotations

import structlog

from services.poller.store import OpenTicket
from shared.acquisition.followed_torrents import followed
from shared.db.pool import Connection, Database
from shared.errors import OutcomeUnknown, Refused
from shared.states import COLLECTING, LIVE_DOWNLOADS, DownloadState, in_sql
from shared.torrentino.client import TorrentinoClient

log = structlog.get_logger()

# A ticket or a direct download follows it, or files are still collected from its folder.
_NEEDED = f"""
EXISTS (SELECT 1 FROM tickets t
         WHERE t.info_hash = {{hash}} AND t.id <> {{but}}
           AND (t.state = '{DownloadState.OPEN}'
                OR (t.way = 'direct' AND t.state IN ({in_sql(LIVE_DOWNLOADS)}))
                OR EXISTS (SELECT 1 FROM queue_items q
                            WHERE q.ticket_id = t.id
                              AND q.stage IN ({in_sql(COLLECTING)}))))
"""  # noqa: S608 (made of constants)

_SEEDED = """
EXISTS (SELECT 1 FROM tickets t JOIN queue_items q ON q.ticket_id = t.id
         WHERE t.info_hash = {hash} AND q.status = 'COMPLETED')
"""

_IS_NEEDED = "SELECT " + _NEEDED.format(hash="$1", but="$2")

# Blocked for a track because it was broken, and not only because it lacks the track.
_IS_BAD = """
EXISTS (SELECT 1 FROM bad_sources b WHERE b.info_hash = $1 AND NOT b.lacks)
"""
_MAY_REFUSE = (
    f"SELECT {_IS_BAD} AND NOT {_SEEDED.format(hash='$1')}"
    f" AND NOT {_NEEDED.format(hash='$1', but='$2')}"
)
# What lacks a track was whole when that was seen.
_LACKS_ONLY = f"""
EXISTS (SELECT 1 FROM bad_sources b WHERE b.info_hash = $1 AND b.lacks) AND NOT {_IS_BAD}
"""  # noqa: S608 made of constants
_MAY_CANCEL = (
    f"SELECT NOT {_SEEDED.format(hash='$1')} AND NOT {_NEEDED.format(hash='$1', but='$2')}"
    f" AND NOT ({_LACKS_ONLY})"
)

# It stays for ever, also when the item that it served is forgotten.
_KEEP_SEEDED = f"""
UPDATE bad_sources b SET removed_at = now()
 WHERE b.removed_at IS NULL AND NOT b.lacks AND {_SEEDED.format(hash="b.info_hash")}
"""  # noqa: S608 made of constants

# What we download directly has its own rules for what is removed.
_BAD_TORRENTS = f"""
SELECT DISTINCT b.info_hash FROM bad_sources b
 WHERE b.removed_at IS NULL AND NOT b.lacks
   AND NOT {_NEEDED.format(hash="b.info_hash", but="''")}
   AND NOT EXISTS (SELECT 1 FROM tickets d
                    WHERE d.info_hash = b.info_hash AND d.way = 'direct')
 LIMIT 20
"""  # noqa: S608 made of constants

_BAD_TORRENT_REMOVED = """
UPDATE bad_sources SET removed_at = now() WHERE info_hash = $1 AND removed_at IS NULL
"""

# What is downloaded next is another torrent, of which nothing has been seen yet.
_FORGET_SOURCE = f"""
UPDATE tickets SET info_hash = NULL, torrent_title = NULL, file_mappings = NULL
 WHERE id = $1 AND state = '{DownloadState.OPEN}'
"""  # noqa: S608 (made of constants)


class TorrentRemoval:
    """Says which torrents are needed, and removes those that are blocked and are not."""

    def __init__(self, database: Database, client: TorrentinoClient) -> None:
        self._database = database
        self._client = client

    async def is_needed(self, info_hash: str, *, but: str) -> bool:
        """Whether a ticket other than `but` downloads this torrent, or collects from it."""
        async with self._database.connection() as connection:
            return bool(await connection.fetchval(_IS_NEEDED, info_hash, but))

    async def may_go(self, info_hash: str, *, but: str) -> bool:
        """Whether what the ticket `but` downloads is removed when that ticket is cancelled."""
        async with self._database.connection() as connection:
            may = bool(await connection.fetchval(_MAY_CANCEL, info_hash, but))
        if not may:
            log.info("torrent_kept", info_hash=info_hash, why="others need it, or it is seeding")
        return may

    async def may_refuse(self, info_hash: str, *, ticket: OpenTicket) -> bool:
        """Whether a blocked torrent may be removed from under this ticket.

        Raises:
            Unavailable: Torrentino, or its torrent client, does not answer.
        """
        async with self._database.connection() as connection:
            may = await connection.fetchval(_MAY_REFUSE, info_hash, ticket.id)
        return bool(may) and not await followed(self._client, [info_hash], but=ticket.torrentino_id)

    async def forget(self, connection: Connection, ticket: OpenTicket) -> None:
        """The ticket continues with another torrent than the one that was seen."""
        await connection.execute(_FORGET_SOURCE, ticket.id)

    async def refuse(self, ticket: OpenTicket, info_hash: str) -> None:
        """Remove the torrent under the living ticket: Torrentino then takes the next candidate."""
        try:
            await self._client.remove_torrent(info_hash, delete_files=True)
        except (OutcomeUnknown, Refused) as error:
            log.info("refusal_unsettled", ticket=ticket.torrentino_id, detail=str(error))

    async def remove_blocked(self) -> None:
        """Take blocked torrents out of the client, so that no ticket finds one downloaded there.

        Raises:
            Unavailable: Torrentino, its torrent client or PostgreSQL does not answer.
        """
        async with self._database.connection() as connection:
            await connection.execute(_KEEP_SEEDED)
            rows = await connection.fetch(_BAD_TORRENTS)
        blocked = [row["info_hash"] for row in rows]
        in_use = await followed(self._client, blocked, but=None)
        for info_hash in blocked:
            if info_hash in in_use:
                continue
            try:
                await self._client.remove_torrent(info_hash, delete_files=True)
            except OutcomeUnknown as error:
                log.info("removal_unsettled", info_hash=info_hash, detail=str(error))
                continue
            except Refused as error:
                log.warning("bad_torrent_stays", info_hash=info_hash, detail=str(error))
            async with self._database.connection() as connection:
                await connection.execute(_BAD_TORRENT_REMOVED, info_hash)
