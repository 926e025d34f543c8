"""What the direct ticketer reads and writes: items, their downloads, and what is remembered."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.ticketer.groups import Group, Kind, grouped
from services.ticketer.intents import (
    ACTOR,
    ONE_AT_A_TIME,
    Reasons,
    claim_items,
    keep,
    resumable,
)
from services.ticketer.search_turns import BACKGROUND, SearchTurns, since_of
from services.ticketer.wanted import Item, Want, item_of, want_of
from shared.choosing.model import Release
from shared.choosing.selection import key_of
from shared.crashpoints import reached
from shared.db import download_moves, moves, releases
from shared.db.albums import KnownAlbum, known_albums
from shared.db.blocklist import OfTrack, block, blocked
from shared.db.claims import Claim
from shared.db.download_moves import Intent
from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Database, Row
from shared.db.releases import Budget
from shared.states import (
    LIVE_DOWNLOADS,
    SERVING_DOWNLOADS,
    WAITING,
    DownloadState,
    Stage,
    in_sql,
)

# Albums that one claim considers; what waits for its turn to search is considered later.
_MOST_CONSIDERED = 200
# What users ask for finds a place also while a scan fills all others.
_KEPT_FOR_USERS = 4
# Results for the artist serve all of the artist's albums.
_ARTIST_WIDE = 3
_MOST_BROUGHT = 500
_REASONS = Reasons(fresh="choosing a release", resumed="looking for the download of an earlier try")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The release that a download was begun with, as it stands in its intent."""

    release: Release
    links: tuple[str, ...]
    # The hashes that the client had before.
    hashes_before: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The items to get one download for."""

    ticket_id: str
    items: tuple[Item, ...]
    want: Want
    # Of the most urgent item.
    priority: int
    # An earlier run has begun to add it: it may be there already.
    begun: Chosen | None
    # An answer from before it, in which nothing was found, is searched for again.
    since: datetime | None

    @property
    def claims(self) -> list[Claim]:
        """The proof that the items are ours."""
        return [each.claim for each in self.items]

    def only(self, items: tuple[Item, ...]) -> Work:
        """The same for some of its items."""
        return replace(self, items=items)

    @property
    def background(self) -> bool:
        """Whether no user waits for it."""
        return self.priority >= BACKGROUND


_IN_FLIGHT = f"""
SELECT count(DISTINCT coalesce(info_hash, id)) AS every,
       count(DISTINCT coalesce(info_hash, id)) FILTER (WHERE priority >= $1) AS background
  FROM tickets WHERE way = 'direct' AND state IN ({in_sql(SERVING_DOWNLOADS)})
"""  # noqa: S608 (made of constants)

# A download that is still being withdrawn keeps its item waiting, and so does that of an earlier
# item of the same track.
_DUE = f"""
SELECT q.id, CASE WHEN q.album_name <> '' THEN q.album_id END AS album_id, q.ask_next,
       q.priority, q.track_id, q.track_name, q.main_artist, q.artist_name, q.disc_number,
       q.track_number, q.duration_ms, q.album_name, q.album_artist
  FROM queue_items q LEFT JOIN tickets t ON t.id = q.ticket_id
 WHERE q.stage IN ({in_sql(WAITING)}) AND q.due_at <= now()
   AND (t.id IS NULL OR t.state = '{DownloadState.CLOSED}')
   AND NOT EXISTS (SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
                    WHERE o.track_id = q.track_id AND o.id <> q.id
                      AND ot.state IN ({in_sql(LIVE_DOWNLOADS)}))
"""  # noqa: S608 (made of constants)

_MOST_URGENT = f"""
{_DUE}
   AND q.id <> ALL($1)
 ORDER BY q.priority, q.seq
 LIMIT $2
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_OF_ALBUMS = f"""
{_DUE}
   AND q.album_id = ANY($1) AND q.id <> ALL($2)
 ORDER BY q.priority, q.seq
 LIMIT 1000
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_INTENTS = """
SELECT id, kind, album_id, torrent_title, size_bytes, info_hash, links, hashes_before, adding_at
  FROM tickets WHERE id = ANY($1)
"""

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
    """The direct ticketer's side of the queue."""

    def __init__(
        self,
        database: Database,
        *,
        max_downloads: int,
        budget: Budget,
        ttl_s: float,
        lease_s: float,
        worker: str,
    ) -> None:
        self.database = database
        self.budget = budget
        self._max_downloads = max_downloads
        self._ttl_s = ttl_s
        self._lease_s = lease_s
        self._worker = worker

    def ttl_s(self, want: Want, query: str) -> float:
        """For how long the answer to this query of it is used again."""
        wide = query in want.artist_wide
        return self._ttl_s * (_ARTIST_WIDE if wide else 1)

    async def claim(self, limit: int, *, takes_new: bool, searcher_wait_s: float) -> list[Work]:
        """Take the items for up to `limit` downloads, most urgent first, and record each intent.

        Taken is what an earlier run left behind, and, with `takes_new`, what needs no search now,
        or may make the next one. `searcher_wait_s`: how long the indexers stay away.
        """
        async with self.database.transaction() as connection:
            await connection.execute(ONE_AT_A_TIME)
            resumed = await resumable(connection, "direct", limit)
            linked = resumed
            if takes_new:
                fresh = await self._fresh(
                    connection, limit - len(resumed), searcher_wait_s=searcher_wait_s
                )
                linked = resumed | await self._intents(connection, fresh)
            return await self.mark(connection, linked, resumed=resumed.keys()) if linked else []

    async def _fresh(
        self, connection: Connection, limit: int, *, searcher_wait_s: float
    ) -> list[tuple[Group, int]]:
        """What new downloads may be begun for, with its priority."""
        flight = await connection.fetchrow(_IN_FLIGHT, BACKGROUND)
        assert flight is not None, "a select of counts has a row"
        room = min(limit, self._max_downloads - flight["every"])
        kept = min(_KEPT_FOR_USERS, self._max_downloads // 2)
        background = self._max_downloads - kept - flight["background"]
        turns = SearchTurns(connection, self.budget, self.ttl_s, searcher_wait_s=searcher_wait_s)
        found: list[tuple[Group, int]] = []
        seen: list[str] = []
        considered = 0
        while len(found) < room and considered < _MOST_CONSIDERED:
            rows = await self._due(connection, seen, room - len(found))
            if not rows:
                break
            groups = grouped(rows, rows, "auto")
            seen += [row["id"] for row in rows]
            considered += len(groups)
            by_id = {row["id"]: row for row in rows}
            albums = await known_albums(connection, {row["album_id"] for row in rows} - {None})
            for group in groups:
                members = [by_id[item_id] for item_id in group.item_ids]
                priority = min(row["priority"] for row in members)
                if len(found) >= room or (priority >= BACKGROUND and background <= 0):
                    continue
                if await turns.may_begin(_want(members, albums), members, priority):
                    found.append((group, priority))
                    background -= priority >= BACKGROUND
        await turns.put_off_the_others()
        return found

    async def _due(self, connection: Connection, seen: Sequence[str], limit: int) -> list[Row]:
        """What is due, with all that is due of the same albums."""
        await connection.execute(IN_INDEX_ORDER)
        rows = await connection.fetch(_MOST_URGENT, list(seen), limit)
        await connection.execute(IN_ANY_ORDER)
        taken = [*seen, *(row["id"] for row in rows)]
        albums = sorted({row["album_id"] for row in rows} - {None})
        more = await connection.fetch(_OF_ALBUMS, albums, taken) if albums else []
        return [*rows, *more]

    async def _intents(
        self, connection: Connection, fresh: Sequence[tuple[Group, int]]
    ) -> dict[str, Sequence[str]]:
        made = {str(uuid.uuid4()): each for each in fresh}
        intents = [
            Intent(
                id=ticket_id,
                dest_path=f"direct:{ticket_id}",
                priority=priority,
                kind=group.kind,
                album_id=group.album_id,
            )
            for ticket_id, (group, priority) in made.items()
        ]
        await download_moves.intend(connection, "direct", intents)
        reached("direct.intended")
        return {ticket_id: list(group.item_ids) for ticket_id, (group, _) in made.items()}

    async def mark(
        self,
        connection: Connection,
        linked: Mapping[str, Sequence[str]],
        *,
        resumed: Collection[str],
    ) -> list[Work]:
        """Claim these items, by their download; returns what to do for each download."""
        by_ticket = await claim_items(
            connection,
            linked,
            resumed=resumed,
            reasons=_REASONS,
            worker=self._worker,
            lease_s=self._lease_s,
        )
        rows = [row for members in by_ticket.values() for row in members]
        intents = {row["id"]: row for row in await connection.fetch(_INTENTS, list(linked))}
        albums = await known_albums(connection, {row["album_id"] for row in rows} - {None})
        wants = {ticket_id: _want(members, albums) for ticket_id, members in by_ticket.items()}
        lacking = await releases.missing(connection, [want.memory for want in wants.values()])
        return [
            Work(
                ticket_id=ticket_id,
                items=tuple(item_of(row) for row in members),
                want=wants[ticket_id],
                priority=members[0]["priority"],
                begun=_begun(intents[ticket_id]),
                since=since_of(lacking.get(wants[ticket_id].memory)),
            )
            for ticket_id, members in by_ticket.items()
        ]

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
            UniqueViolationError: another release is being added.
        """
        release = chosen.release
        async with self.database.connection() as connection:
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

    async def close_intent(self, connection: Connection, ticket_id: str) -> None:
        """Drop an intent that certainly led to no torrent, and whose items no ticketer holds."""
        await download_moves.close_unstarted(connection, ticket_id, how="nothing found")

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


def _want(rows: Sequence[Row], albums: Mapping[str, KnownAlbum]) -> Want:
    first = rows[0]
    return want_of([item_of(row) for row in rows], albums.get(first["album_id"]))


def _begun(row: Row) -> Chosen | None:
    if row["adding_at"] is None:
        return None
    return Chosen(
        release=Release(
            title=row["torrent_title"],
            size_bytes=row["size_bytes"] or 0,
            seeders=1,
            info_hash=row["info_hash"] or "",
        ),
        links=tuple(row["links"] or ()),
        hashes_before=frozenset(row["hashes_before"] or ()),
    )


def _telling_word(artist: str) -> str:
    """A word that a title with this artist has, however it is written; or nothing."""
    words = re.findall(r"[a-z0-9]+", artist.casefold())
    return max(words, key=len, default="")
