"""Whose a torrent at Torrentino is, which download needs it, and what the settings allow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from shared.acquisition.removal import Case, Ground, Standing
from shared.db.pool import Connection, Database
from shared.db.torrents_seen import forget_torrent, lock_for_removal
from shared.errors import Conflict
from shared.settings import Settings
from shared.states import COLLECTING, LIVE_DOWNLOADS, DownloadState, in_sql

# By how much the clock of the torrent client may be behind PostgreSQL's.
_CLOCKS = timedelta(minutes=5)

# Ours is what was not at the client before one of our downloads asked for it: by the client's list
# of that time, and by the time that the client tells. `$2` downloads it by now, though its row may
# not say so yet.
_OURS = """
EXISTS (SELECT 1 FROM tickets t
         WHERE (lower(t.info_hash) = lower($1) OR t.id = $2)
           AND ($3::timestamptz IS NULL OR t.intended_at <= $3)
           AND CASE WHEN t.way = 'direct' THEN t.ours IS TRUE
                    WHEN t.listed_at IS NULL THEN $3::timestamptz IS NOT NULL
                    ELSE NOT EXISTS (SELECT 1 FROM torrents_seen s
                                      WHERE s.info_hash = lower($1)
                                        AND s.first_seen_at <= t.listed_at) END)
"""

# A ticket or a direct download follows it, or files are still collected from its folder.
NEEDED = f"""
EXISTS (SELECT 1 FROM tickets t
         WHERE t.info_hash = {{hash}} AND t.id <> {{but}}
           AND (t.state = '{DownloadState.OPEN}'
                OR (t.way = 'direct' AND t.state IN ({in_sql(LIVE_DOWNLOADS)}))
                OR EXISTS (SELECT 1 FROM queue_items q
                            WHERE q.ticket_id = t.id
                              AND q.stage IN ({in_sql(COLLECTING)}))))
"""  # noqa: S608 (made of constants)

SEEDED = """
EXISTS (SELECT 1 FROM tickets t JOIN queue_items q ON q.ticket_id = t.id
         WHERE t.info_hash = {hash} AND q.status = 'COMPLETED')
"""

# Blocked for a track because it is damaged; $4: or because its recording is another one.
_BAD = """
EXISTS (SELECT 1 FROM bad_sources b
         WHERE b.info_hash = $1 AND NOT b.lacks AND ($4::boolean OR NOT b.whole))
"""

# What only lacks a track, or has another recording of it, was whole when that was seen.
_SOUND = f"""
EXISTS (SELECT 1 FROM bad_sources b
         WHERE b.info_hash = $1 AND (b.lacks OR (b.whole AND NOT $4::boolean))) AND NOT {_BAD}
"""  # noqa: S608 (made of constants)

_STANDING = f"""
SELECT {_OURS} AS ours, {NEEDED.format(hash="$1", but="$2")} AS needed,
       {SEEDED.format(hash="$1")} AS seeded, {_BAD} AS bad, {_SOUND} AS sound
"""


class RemovalRules:
    """`Rules` by TORRENTINO_CLEANUP, DOWNLOAD_CLEANUP and what is recorded."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._ticket_policy = settings.torrentino_cleanup
        self._download_policy = settings.download_cleanup

    @property
    def removes_whole(self) -> bool:
        """Whether a whole torrent of ours with another recording is removed."""
        return self._ticket_policy == "torrent"

    def allow(self, case: Case) -> bool:
        """See `Rules`. What our tickets brought is removed if it is damaged or not whole.

        Torrentino would choose the damaged one again, and continue with the other.
        """
        if case.mode == "direct":
            # What is in error brings nothing, and would be found there in place of the new one.
            return case.ground is Ground.FAILED or self._download_policy != "keep"
        return case.ground is not Ground.COLLECTED or self._ticket_policy == "torrent"

    @asynccontextmanager
    async def undisturbed(
        self, case: Case, *, added_at: datetime | None
    ) -> AsyncIterator[Standing]:
        """See `Rules`. The transaction lasts as long as the block."""
        async with self._database.transaction() as connection:
            if not await lock_for_removal(connection):
                raise Conflict("a torrent is being added or removed just now")
            standing = await self._standing(connection, case, added_at)
            yield standing
            if standing is Standing.FREE:
                await forget_torrent(connection, case.info_hash)

    async def _standing(
        self, connection: Connection, case: Case, added_at: datetime | None
    ) -> Standing:
        row = await connection.fetchrow(
            _STANDING,
            case.info_hash,
            case.download_id,
            None if added_at is None else added_at + _CLOCKS,
            self.removes_whole,
        )
        assert row is not None, "it has no FROM"
        if not row["ours"]:
            return Standing.FOREIGN
        stays = row["needed"]
        if case.mode == "tickets" and case.ground is Ground.UNWANTED:
            stays = stays or row["seeded"] or row["sound"]
        elif case.ground is Ground.BAD:
            stays = stays or row["seeded"] or not row["bad"]
        return Standing.NEEDED if stays else Standing.FREE
