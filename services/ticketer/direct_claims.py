"""What the direct ticketer takes up: due items, grouped by the download that serves them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.ticketer.groups import Group, grouped
from services.ticketer.intents import ONE_AT_A_TIME, Reasons, claim_items, resumable
from services.ticketer.places import BACKGROUND, Places, torrent_places
from services.ticketer.search_turns import SearchLimits, SearchTurns, since_of
from services.ticketer.wanted import Item, Want, item_of, want_of
from shared.choosing.model import Release
from shared.crashpoints import reached
from shared.db import download_moves, releases
from shared.db.albums import KnownAlbum, known_albums
from shared.db.claims import Claim
from shared.db.download_moves import Intent
from shared.db.identity import installation_id
from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Database, Row
from shared.states import LIVE_DOWNLOADS, WAITING, DownloadState, in_sql

# Albums that one claim considers; what waits for its turn to search is considered later.
_MOST_CONSIDERED = 200
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
    # In a row, of what was this download's alone.
    failures: int = 0
    # Whose name is in the folder that is ordered.
    installation: str = ""

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


# A download that is still being withdrawn keeps its item waiting, and so does that of an earlier
# item of the same track.
_DUE = f"""
SELECT q.id, CASE WHEN q.album_name <> '' THEN q.album_id END AS album_id, q.ask_next,
       q.priority, q.turn_of, q.track_id, q.track_name, q.main_artist, q.artist_name, q.disc_number,
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
   AND q.priority <= $3 AND q.turn_of IS DISTINCT FROM $4
 ORDER BY q.priority, q.turn, q.seq
 LIMIT $2
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_OF_ALBUMS = f"""
{_DUE}
   AND q.album_id = ANY($1) AND q.id <> ALL($2)
 ORDER BY q.priority, q.turn, q.seq
 LIMIT 1000
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_INTENTS = """
SELECT id, kind, album_id, torrent_title, size_bytes, info_hash, links, hashes_before, adding_at
  FROM tickets WHERE id = ANY($1)
"""


class DirectClaims:
    """Takes items for downloads, with an intent for each."""

    def __init__(
        self,
        database: Database,
        *,
        max_downloads: int,
        limits: SearchLimits,
        lease_s: float,
        worker: str,
    ) -> None:
        self._database = database
        self._max_downloads = max_downloads
        self._limits = limits
        self._lease_s = lease_s
        self._worker = worker

    async def claim(self, limit: int, *, takes_new: bool, searcher_wait_s: float) -> list[Work]:
        """Take the items for up to `limit` downloads, most urgent first, and record each intent.

        Taken is what an earlier run left behind, and, with `takes_new`, what needs no search now,
        or may make the next one. `searcher_wait_s`: how long the indexers stay away.
        """
        async with self._database.transaction() as connection:
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
        places = await torrent_places(connection, self._max_downloads)
        turns = SearchTurns(connection, self._limits, searcher_wait_s=searcher_wait_s)
        found: list[tuple[Group, int]] = []
        seen: list[str] = []
        considered = 0
        while len(found) < limit and places.free > 0 and considered < _MOST_CONSIDERED:
            rows = await self._due(connection, seen, limit - len(found), places)
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
                user = members[0]["turn_of"]
                if len(found) >= limit or not places.may_take(priority, user):
                    continue
                if await turns.may_begin(_want(members, albums), members, priority):
                    found.append((group, priority))
                    places.take(priority, user)
        await turns.put_off_the_others()
        return found

    async def _due(
        self, connection: Connection, seen: Sequence[str], limit: int, places: Places
    ) -> list[Row]:
        """What is due and may have a place, with all that is due of the same albums."""
        await connection.execute(IN_INDEX_ORDER)
        rows = await connection.fetch(
            _MOST_URGENT,
            list(seen),
            min(limit, places.free),
            places.least_urgent,
            places.full_for,
        )
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
        installation = await installation_id(connection)
        lacking = await releases.missing(connection, [want.memory for want in wants.values()])
        return [
            Work(
                ticket_id=ticket_id,
                items=tuple(item_of(row) for row in members),
                want=wants[ticket_id],
                priority=members[0]["priority"],
                begun=_begun(intents[ticket_id]),
                failures=members[0]["failures"],
                installation=installation,
                since=since_of(lacking.get(wants[ticket_id].memory)),
            )
            for ticket_id, members in by_ticket.items()
        ]


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
