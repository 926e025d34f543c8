"""What the direct ticketer records of a download: its choice, its torrent, its end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.ticketer.direct_claims import Chosen, Work
from services.ticketer.groups import Kind
from services.ticketer.intents import ACTOR, keep
from services.ticketer.wanted import Want
from shared.choosing.model import Release
from shared.choosing.selection import key_of
from shared.crashpoints import reached
from shared.db import download_moves, moves, releases
from shared.db.blocklist import OfTrack, block, blocked
from shared.db.claims import Claim
from shared.db.pool import Connection, Database
from shared.db.torrents_seen import lock_for_add
from shared.errors import Conflict
from shared.states import DownloadState, Stage, in_sql

_MOST_BROUGHT = 500

# Torrents that our downloads have brought, and that are not known to be removed.
_BROUGHT = f"""
SELECT DISTINCT ON (info_hash) info_hash, torrent_title, size_bytes
  FROM tickets
 WHERE way = 'direct' AND state IN ({in_sql([DownloadState.OPEN, DownloadState.CLOSED])})
   AND removed_at IS NULL
   AND info_hash IS NOT NULL AND torrent_title ILIKE $1
   AND (state = '{DownloadState.OPEN}' OR remote_state = 'completed')
 ORDER BY info_hash, intended_at DESC
 LIMIT $2
"""  # noqa: S608 (made of constants)

_IS_OURS = """
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE info_hash = $1 AND way = 'direct' AND ours AND removed_at IS NULL
                  AND id <> $2)
"""

# Only while an item is ours; a choice that is made again replaces the one before.
_INTEND = f"""
UPDATE tickets
   SET release_key = $2, torrent_title = $3, size_bytes = $4, info_hash = $5, links = $6,
       hashes_before = $7, ours = $8, adding_at = CASE WHEN $12 THEN now() END, kind = $9
 WHERE id = $1 AND state = '{DownloadState.INTENT}'
   AND EXISTS (SELECT 1 FROM queue_items q
                 JOIN unnest($10::text[], $11::bigint[]) AS held (id, fence) USING (id)
                WHERE q.fence = held.fence AND q.stage IN ({in_sql([Stage.TICKETING])}))
"""  # noqa: S608 (made of constants)

_RETRACT = f"""
UPDATE tickets
   SET adding_at = NULL, info_hash = NULL, links = NULL, hashes_before = NULL, ours = NULL, adds = 0
 WHERE id = $1 AND state = '{DownloadState.INTENT}'
"""  # noqa: S608 (made of constants)

# Of no download any more: they need not wait for the end of the one that the others take.
_UNLINK = f"""
UPDATE queue_items SET ticket_id = NULL, updated_at = now()
 WHERE id = ANY($1) AND stage IN ({in_sql([Stage.QUEUED])}) AND fence = ANY($2)
"""  # noqa: S608 (made of constants)

# It was added by a ticketer that had lost its claim meanwhile: known again, so that it is removed.
_CAME_LATE = f"""
UPDATE tickets SET info_hash = $2, removed_at = NULL
 WHERE id = $1 AND state IN ({in_sql([DownloadState.WITHDRAWING, DownloadState.CLOSED])}) AND ours
   AND (info_hash IS NULL OR info_hash = $2)
"""  # noqa: S608 (made of constants)

_COUNT_ADD = f"""
UPDATE tickets SET adds = adds + 1 WHERE id = $1 AND state = '{DownloadState.INTENT}' RETURNING adds
"""  # noqa: S608 (made of constants)


class DirectStore:
    """The downloads that the direct ticketer begins, and their items."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def blocked(self, work: Work) -> dict[str, OfTrack]:
        """What is blocked for each of its tracks."""
        async with self.database.connection() as connection:
            return await blocked(connection, [each.track.id for each in work.items])

    async def brought(self, want: Want) -> list[Release]:
        """The torrents by this artist that our downloads have brought to the client."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _BROUGHT, f"%{_telling_word(want.artist)}%", _MOST_BROUGHT
            )
        return [
            Release(
                title=row["torrent_title"],
                size_bytes=row["size_bytes"] or 0,
                seeders=1,
                info_hash=row["info_hash"],
            )
            for row in rows
        ]

    async def is_ours(self, info_hash: str, *, but: str) -> bool:
        """Whether another of our downloads has added this torrent."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_IS_OURS, info_hash, but))

    async def intend(
        self,
        work: Work,
        chosen: Chosen,
        *,
        kind: Kind,
        ours: bool,
        adds: bool,
    ) -> bool:
        """Note what is chosen, and with `adds` that it is about to be added.

        False when no item is ours any more.

        Raises:
            Conflict: a torrent is being removed just now.
            UniqueViolationError: another release is being added.
        """
        release = chosen.release
        async with self.database.transaction() as connection:
            if not await lock_for_add(connection):
                raise Conflict("a torrent is being removed just now")
            done = await connection.execute(
                _INTEND,
                work.ticket_id,
                key_of(release),
                release.title,
                release.size_bytes or None,
                release.info_hash or None,
                list(chosen.links),
                sorted(chosen.hashes_before),
                ours,
                kind,
                [c.item_id for c in work.claims],
                [c.fence for c in work.claims],
                adds,
            )
        return bool(done == "UPDATE 1")

    async def refuse(self, work: Work, *, reason: str) -> None:
        """The client does not take the chosen release: the next one is tried."""
        async with self.database.transaction() as connection:
            await block(
                connection,
                [claim.item_id for claim in work.claims],
                why="refused",
                reason=reason,
            )
            await connection.execute(_RETRACT, work.ticket_id)

    async def close_intent(self, connection: Connection, ticket_id: str, *, how: str) -> None:
        """Drop an intent that certainly led to no torrent, and whose items no ticketer holds."""
        await download_moves.close_unstarted(connection, ticket_id, how=how)

    async def adding(self, work: Work, *, for_s: float) -> int | None:
        """Make the claims last this long, and count the add that comes now; how many that makes.

        None when no item is ours any more.
        """
        async with self.database.transaction() as connection:
            if not await keep(connection, work.claims, for_s=for_s):
                return None
            adds: int | None = await connection.fetchval(_COUNT_ADD, work.ticket_id)
        return adds

    async def record(
        self, work: Work, info_hash: str, *, title: str, ours: bool | None = None
    ) -> bool:
        """The torrent is there; False when no item is ours any more.

        `ours`: whether we have put it there, where that was not known before it was added.
        """
        async with self.database.transaction() as connection:
            reason = f"downloads {title}"[:500]
            if not await self._start(connection, work, reason):
                return False
            reached("direct.recording")
            opened = await download_moves.open_torrent(
                connection, work.ticket_id, info_hash=info_hash, ours=ours
            )
            assert opened, "only the ticketer that holds an item ends its intent"
            await releases.forget_missing(connection, [work.want.memory])
            return True

    async def leave_out(self, claims: Sequence[Claim], reason: str, *, actor: str) -> None:
        """Give back items that take another release than the others of their download."""
        async with self.database.transaction() as connection:
            await moves.hand_back(
                connection, claims, Stage.QUEUED, delay_s=0.0, reason=reason, actor=actor
            )
            await connection.execute(
                _UNLINK, [c.item_id for c in claims], [c.fence for c in claims]
            )

    async def came_late(self, work: Work, info_hash: str) -> None:
        """The torrent of a download that has ended without it is there after all."""
        async with self.database.connection() as connection:
            await connection.execute(_CAME_LATE, work.ticket_id, info_hash)

    async def record_in_the_way(self, work: Work, path: str, *, title: str) -> bool:
        """Its files lie there already, by the client's answer; False as `record`."""
        async with self.database.transaction() as connection:
            reason = f"the files of {title} are there already"[:500]
            if not await self._start(connection, work, reason):
                return False
            await moves.follow(connection, Stage.READY, {work.ticket_id: reason}, actor=ACTOR)
            await download_moves.close_in_the_way(connection, work.ticket_id, path=path)
            return True

    async def _start(self, connection: Connection, work: Work, reason: str) -> bool:
        """The download of the items that are still ours has been started; False: none is."""
        moved = await moves.start(
            connection, work.claims, torrentino_id=None, reason=reason, actor=ACTOR
        )
        return bool(moved)


def _telling_word(artist: str) -> str:
    """A word that a title with this artist has, however it is written; or nothing."""
    words = re.findall(r"[a-z0-9]+", artist.casefold())
    return max(words, key=len, default="")
