"""What the ticketer reads and writes."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.ticketer.groups import Group, Grouping, Kind, grouped, may_share
from services.ticketer.intents import (
    ACTOR,
    ONE_AT_A_TIME,
    Reasons,
    claim_items,
    keep,
    resumable,
)
from services.ticketer.places import Places, ticket_places
from services.ticketer.wanted import Item, item_of
from shared.crashpoints import reached
from shared.db import download_moves, moves
from shared.db.albums import KnownAlbum, known_albums
from shared.db.claims import Claim
from shared.db.download_moves import Intent
from shared.db.identity import installation_id
from shared.db.moves import Joining
from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Database, Row
from shared.db.torrents_seen import note_torrents
from shared.states import (
    LIVE_DOWNLOADS,
    SERVING_DOWNLOADS,
    WAITING,
    DownloadState,
    in_sql,
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The items to get one ticket for, and the intent under which it is asked for."""

    items: tuple[Item, ...]
    ticket_id: str
    dest_path: str
    kind: Kind
    # Of an album's ticket: its whole tracklist, where it is known.
    album: KnownAlbum | None
    # The most urgent item's.
    priority: int
    # The intent is an earlier run's: the ticket may exist already.
    resumed: bool
    # In a row, of what was this ticket's alone.
    failures: int

    @property
    def claims(self) -> list[Claim]:
        """The proof that the items are ours."""
        return [each.claim for each in self.items]


_REASONS = Reasons(fresh="asking for a ticket", resumed="looking for the ticket of an earlier try")

# What an album's ticket `t` may still bring for the item `q`.
_CAN_HELP = """
t.album_id = q.album_id AND t.kind = 'album' AND t.process_asked_at IS NULL
           AND q.ask_next IS DISTINCT FROM 'track'
           AND NOT EXISTS (SELECT 1 FROM bad_sources b
                            WHERE b.track_id = q.track_id AND b.info_hash = t.info_hash)
"""

# A ticket that is still being withdrawn keeps its item waiting, and so does that of an earlier item
# of the same track: never two live tickets for one track, which might share a torrent. What is to
# join a ticket that is being made, or that a poller has locked just now, does so in a moment.
_DUE = f"""
  FROM queue_items q LEFT JOIN tickets t ON t.id = q.ticket_id
 WHERE q.stage IN ({in_sql(WAITING)}) AND q.due_at <= now()
   AND (t.id IS NULL OR t.state = '{DownloadState.CLOSED}')
   AND NOT EXISTS (SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
                    WHERE o.track_id = q.track_id AND o.id <> q.id
                      AND ot.state IN ({in_sql(LIVE_DOWNLOADS)}))
   AND NOT ($1 AND EXISTS (SELECT 1 FROM tickets t
                            WHERE t.state IN ({in_sql(SERVING_DOWNLOADS)}) AND t.way = 'tickets'
                              AND {_CAN_HELP}))
"""  # noqa: S608 (made of constants)

# An album without a name cannot be asked for.
FRESH = f"""
SELECT q.id, CASE WHEN q.album_name <> '' THEN q.album_id END AS album_id, q.ask_next, q.priority,
       q.turn_of
{_DUE}
   AND q.priority <= $5 AND q.turn_of IS DISTINCT FROM $6
   AND q.id <> ALL($2)
   AND NOT ($1 AND q.album_id = ANY($3) AND q.ask_next IS DISTINCT FROM 'track')
 ORDER BY q.priority, q.turn, q.seq
 LIMIT $4
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""  # noqa: S608 (made of constants)

OF_ALBUMS = f"""
SELECT q.id, q.album_id, q.ask_next
{_DUE}
   AND q.album_id = ANY($2)
 ORDER BY q.priority, q.turn, q.seq
 LIMIT 500
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

# Also those that an open ticket served before, and that a dead worker or a retry gave back.
JOINING = f"""
SELECT q.id AS item_id, t.id AS ticket_id, t.torrentino_id
  FROM tickets t JOIN queue_items q
    ON (q.ticket_id = t.id AND t.kind = 'album' AND t.process_asked_at IS NULL)
    OR ($1 AND {_CAN_HELP})
 WHERE t.state = '{DownloadState.OPEN}' AND t.way = 'tickets'
   AND q.stage IN ({in_sql(WAITING)}) AND q.due_at <= now()
   AND NOT EXISTS (SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
                    WHERE o.track_id = q.track_id AND ot.id <> t.id
                      AND ot.state IN ({in_sql(LIVE_DOWNLOADS)}))
 LIMIT 500
   FOR NO KEY UPDATE OF q, t SKIP LOCKED
"""  # noqa: S608 (made of constants)


class Store:
    """The ticketer's side of the queue."""

    def __init__(
        self,
        database: Database,
        *,
        dest_root: str,
        grouping: Grouping,
        max_in_flight: int,
        lease_s: float,
        worker: str,
    ) -> None:
        self.database = database
        self._dest_root = dest_root.rstrip("/")
        self._grouping = grouping
        self._max_in_flight = max_in_flight
        self._lease_s = lease_s
        self._worker = worker

    async def join(self) -> int:
        """Let due items join the open ticket of their album, where it can still help them."""
        async with self.database.transaction() as connection:
            rows = await connection.fetch(JOINING, self._grouping != "track")
            joined = await moves.join_ticket(
                connection,
                [Joining(**row) for row in rows],
                reason="joins the ticket of its album",
                actor=ACTOR,
            )
        return len(joined)

    async def claim(self, limit: int, *, takes_new: bool) -> list[Work]:
        """Take the items for up to `limit` tickets, most urgent first, and record each intent.

        Items whose intent an earlier run left behind come first and need no free place. What is
        new is taken only with `takes_new`.
        """
        async with self.database.transaction() as connection:
            await connection.execute(ONE_AT_A_TIME)
            resumed = await resumable(connection, "tickets", limit)
            room = limit - len(resumed)
            fresh = await self._fresh(connection, room) if takes_new and room > 0 else {}
            if not resumed and not fresh:
                return []
            ours = await installation_id(connection)
            intents = [
                Intent(
                    id=ticket_id,
                    dest_path=f"{self._dest_root}/{ours}/{ticket_id}",
                    priority=0,
                    kind=group.kind,
                    album_id=group.album_id,
                )
                for ticket_id, group in fresh.items()
            ]
            await download_moves.intend(connection, "tickets", intents)
            reached("ticketer.intended")
            linked = resumed | {id_: group.item_ids for id_, group in fresh.items()}
            return await self._mark(connection, linked, resumed=resumed)

    async def _fresh(self, connection: Connection, limit: int) -> dict[str, Group]:
        """The items that are to share a ticket, by the new ticket's id."""
        joins = self._grouping != "track"
        groups: list[Group] = []
        places = await ticket_places(connection, self._max_in_flight)
        # The most urgent may all be of one album, or of a user who may take no more: then there is
        # room for what comes after it.
        while len(groups) < limit and places.free > 0:
            rows = await self.due(connection, groups, limit - len(groups), places)
            if not rows:
                break
            albums = sorted({row["album_id"] for row in rows if may_share(row, self._grouping)})
            of_albums = await connection.fetch(OF_ALBUMS, joins, albums) if albums else []
            by_id = {row["id"]: row for row in rows}
            for group in grouped(rows, of_albums, self._grouping):
                first = next(by_id[id_] for id_ in group.item_ids if id_ in by_id)
                if places.may_take(first["priority"], first["turn_of"]):
                    places.take(first["priority"], first["turn_of"])
                    groups.append(group)
        return {str(uuid.uuid4()): group for group in groups}

    async def due(
        self, connection: Connection, groups: Sequence[Group], limit: int, places: Places
    ) -> Sequence[Row]:
        """What is due, may have a place, and can join no ticket of the groups so far."""
        taken = [item_id for group in groups for item_id in group.item_ids]
        albums = [group.album_id for group in groups if group.album_id is not None]
        await connection.execute(IN_INDEX_ORDER)
        rows = await connection.fetch(
            FRESH,
            self._grouping != "track",
            taken,
            albums,
            min(limit, places.free),
            places.least_urgent,
            places.full_for,
        )
        await connection.execute(IN_ANY_ORDER)
        return rows

    async def _mark(
        self,
        connection: Connection,
        linked: Mapping[str, Sequence[str]],
        *,
        resumed: Collection[str],
    ) -> list[Work]:
        by_ticket = await claim_items(
            connection,
            linked,
            resumed=resumed,
            reasons=_REASONS,
            worker=self._worker,
            lease_s=self._lease_s,
        )
        rows = [row for members in by_ticket.values() for row in members]
        albums = await known_albums(connection, {row["ticket_album_id"] for row in rows} - {None})
        return [self._work(each, albums) for each in by_ticket.values()]

    def _work(self, rows: Sequence[Row], albums: dict[str, KnownAlbum]) -> Work:
        first = rows[0]
        return Work(
            items=tuple(item_of(row) for row in rows),
            ticket_id=first["ticket_id"],
            dest_path=first["dest_path"],
            kind=first["kind"],
            album=_album(rows, albums) if first["kind"] == "album" else None,
            priority=first["priority"],
            resumed=first["resumed"],
            failures=first["failures"],
        )

    async def list_before(self, batch: Sequence[Work], info_hashes: Collection[str]) -> None:
        """Note which torrents were at the client before these tickets are asked for."""
        async with self.database.transaction() as connection:
            await note_torrents(connection, info_hashes, before=[work.ticket_id for work in batch])

    async def keep(self, work: Work, *, for_s: float) -> bool:
        """Make the claims last this long from now; False when no item is ours any more."""
        async with self.database.connection() as connection:
            return await keep(connection, work.claims, for_s=for_s)

    async def record(self, work: Work, *, torrentino_id: str, priority: int) -> bool:
        """Note the ticket that Torrentino made; False when no item is ours any more."""
        async with self.database.transaction() as connection:
            moved = await moves.start(
                connection,
                work.claims,
                torrentino_id=torrentino_id,
                reason="Torrentino has the ticket",
                actor=ACTOR,
            )
            if not moved:
                return False
            reached("ticketer.recording")
            opened = await download_moves.open_ticket(
                connection, work.ticket_id, torrentino_id=torrentino_id, priority=priority
            )
            assert opened, "only the ticketer that holds an item ends its intent"
            return True

    async def superseded(self, work: Work, *, torrentino_id: str) -> bool:
        """Whether this intent has ended, or has led to another ticket than this one."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_SUPERSEDED, work.ticket_id, torrentino_id))


_SUPERSEDED = f"""
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE id = $1 AND (state = '{DownloadState.CLOSED}' OR torrentino_id <> $2))
"""  # noqa: S608 (made of constants)


async def close_intent(connection: Connection, ticket_id: str) -> None:
    """Drop an intent that certainly led to no ticket, and whose items no ticketer holds."""
    await download_moves.close_unstarted(connection, ticket_id, how="refused")


def _album(rows: Sequence[Row], albums: dict[str, KnownAlbum]) -> KnownAlbum:
    """The album as the catalog had it; else what its items tell of it."""
    first = rows[0]
    return albums.get(first["ticket_album_id"]) or KnownAlbum(
        name=first["album_name"],
        artist=first["album_artist"] or first["main_artist"] or first["artist_name"],
        tracks=tuple(item_of(row).wanted.track for row in rows),
    )
