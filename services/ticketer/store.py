"""What the ticketer reads and writes."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.ticketer.groups import Group, Grouping, Kind, grouped, may_share
from services.ticketer.intents import ONE_AT_A_TIME, keep, resumable
from services.ticketer.wanted import Item, item_of
from shared.crashpoints import reached
from shared.db.albums import KnownAlbum, known_albums
from shared.db.items import Claim
from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Database, Row
from shared.metrics import ITEMS_CLAIMED
from shared.states import STATUS_OF, Stage, allowed_from


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

    @property
    def claims(self) -> list[Claim]:
        """The proof that the items are ours."""
        return [each.claim for each in self.items]


# A ticket that waits for approval keeps no place, up to ten times as many as there are places:
# Torrentino does nothing for it, but the poller reads every one.
_IN_FLIGHT = """
SELECT count(*) - least(count(*) FILTER (WHERE state = 'open' AND remote_state = 'needs_approval'),
                        10 * $1)
  FROM tickets WHERE state <> 'closed' AND way = 'tickets'
"""

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
 WHERE q.stage IN ('queued', 'retry_wait') AND q.due_at <= now()
   AND (t.id IS NULL OR t.state = 'closed')
   AND NOT EXISTS (SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
                    WHERE o.track_id = q.track_id AND o.id <> q.id AND ot.state <> 'closed')
   AND NOT ($1 AND EXISTS (SELECT 1 FROM tickets t
                            WHERE t.state IN ('intent', 'open') AND t.way = 'tickets'
                              AND {_CAN_HELP}))
"""  # noqa: S608 (made of constants)

# An album without a name cannot be asked for.
_FRESH = f"""
SELECT q.id, CASE WHEN q.album_name <> '' THEN q.album_id END AS album_id, q.ask_next
{_DUE}
   AND q.id <> ALL($2)
   AND NOT ($1 AND q.album_id = ANY($3) AND q.ask_next IS DISTINCT FROM 'track')
 ORDER BY q.priority, q.seq
 LIMIT $4
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""  # noqa: S608 (made of constants)

_OF_ALBUMS = f"""
SELECT q.id, q.album_id, q.ask_next
{_DUE}
   AND q.album_id = ANY($2)
 ORDER BY q.priority, q.seq
 LIMIT 500
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_NEW_INTENTS = """
INSERT INTO tickets (id, dest_path, priority, kind, album_id)
SELECT t.id, t.dest_path, 0, t.kind, t.album_id
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS t (id, dest_path, kind, album_id)
"""

_CLAIM = """
UPDATE queue_items q
   SET stage = $1, status = $2, actor = 'ticketer', lease_owner = $3,
       lease_until = now() + make_interval(secs => $4), fence = nextval('fence_seq'),
       reason = CASE WHEN d.resumed THEN 'looking for the ticket of an earlier try'
                     WHEN t.kind = 'album' THEN 'asking for a ticket for its album'
                     ELSE 'asking for a ticket' END,
       attempt = q.attempt + CASE WHEN d.resumed THEN 0 ELSE 1 END,
       torrentino_ticket_id = CASE WHEN d.resumed THEN q.torrentino_ticket_id END,
       ticket_id = d.ticket_id, chosen_file = NULL, converted_pct = NULL,
       started_at = coalesce(q.started_at, extract(epoch FROM now())::bigint),
       updated_at = now()
  FROM unnest($5::text[], $6::text[], $7::boolean[]) AS d (item_id, ticket_id, resumed)
  JOIN tickets t ON t.id = d.ticket_id
 WHERE q.id = d.item_id AND q.stage = ANY($8)
RETURNING q.id, q.fence, q.ticket_id, q.track_id, q.track_name, q.main_artist, q.artist_name,
          q.disc_number, q.track_number, q.duration_ms, q.album_name, q.album_artist, q.priority,
          q.seq, d.resumed, t.kind, t.album_id
"""

# Also those that an open ticket served before, and that a dead worker or a user's retry gave back.
_JOIN = f"""
UPDATE queue_items q
   SET stage = $1, status = $2, actor = 'ticketer', reason = 'joins the ticket of its album',
       attempt = q.attempt + 1, ticket_id = d.ticket_id, torrentino_ticket_id = d.torrentino_id,
       chosen_file = NULL, converted_pct = NULL,
       started_at = coalesce(q.started_at, extract(epoch FROM now())::bigint), updated_at = now()
  FROM (SELECT q.id AS item_id, t.id AS ticket_id, t.torrentino_id
          FROM tickets t JOIN queue_items q
            ON (q.ticket_id = t.id AND t.kind = 'album' AND t.process_asked_at IS NULL)
            OR ($4 AND {_CAN_HELP})
         WHERE t.state = 'open' AND t.way = 'tickets'
           AND q.stage IN ('queued', 'retry_wait') AND q.due_at <= now()
           AND NOT EXISTS (SELECT 1 FROM queue_items o JOIN tickets ot ON ot.id = o.ticket_id
                            WHERE o.track_id = q.track_id AND ot.state <> 'closed'
                              AND ot.id <> t.id)
         LIMIT 500
           FOR NO KEY UPDATE OF q, t SKIP LOCKED) d
 WHERE q.id = d.item_id AND q.stage = ANY($3)
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
            done: str = await connection.execute(
                _JOIN,
                Stage.SEARCHING.value,
                STATUS_OF[Stage.SEARCHING].value,
                sorted(set(allowed_from(Stage.SEARCHING)) - {Stage.TICKETING}),
                self._grouping != "track",
            )
        return int(done.rsplit(maxsplit=1)[-1])

    async def claim(self, limit: int, *, takes_new: bool) -> list[Work]:
        """Take the items for up to `limit` tickets, most urgent first, and record each intent.

        Items whose intent an earlier run left behind come first and need no free place. What is
        new is taken only with `takes_new`.
        """
        async with self.database.transaction() as connection:
            await connection.execute(ONE_AT_A_TIME)
            resumed = await resumable(connection, "tickets", limit)
            in_flight = await connection.fetchval(_IN_FLIGHT, self._max_in_flight)
            room = min(limit - len(resumed), self._max_in_flight - in_flight) if takes_new else 0
            fresh = await self._fresh(connection, room) if room > 0 else {}
            if not resumed and not fresh:
                return []
            await connection.execute(
                _NEW_INTENTS,
                list(fresh),
                [self._dest_path(ticket_id) for ticket_id in fresh],
                [group.kind for group in fresh.values()],
                [group.album_id for group in fresh.values()],
            )
            reached("ticketer.intended")
            linked = resumed | {id_: group.item_ids for id_, group in fresh.items()}
            return await self._mark(connection, linked, resumed=resumed)

    async def _fresh(self, connection: Connection, limit: int) -> dict[str, Group]:
        """The items that are to share a ticket, by the new ticket's id."""
        joins = self._grouping != "track"
        groups: list[Group] = []
        # The most urgent may all be of one album: then there is room for what comes after it.
        while len(groups) < limit:
            rows = await self._due(connection, groups, limit - len(groups))
            if not rows:
                break
            albums = sorted({row["album_id"] for row in rows if may_share(row, self._grouping)})
            of_albums = await connection.fetch(_OF_ALBUMS, joins, albums) if albums else []
            groups += grouped(rows, of_albums, self._grouping)
        return {str(uuid.uuid4()): group for group in groups}

    async def _due(
        self, connection: Connection, groups: Sequence[Group], limit: int
    ) -> Sequence[Row]:
        """What is due beside the groups so far, and can join none of their tickets."""
        taken = [item_id for group in groups for item_id in group.item_ids]
        albums = [group.album_id for group in groups if group.album_id is not None]
        await connection.execute(IN_INDEX_ORDER)
        rows = await connection.fetch(_FRESH, self._grouping != "track", taken, albums, limit)
        await connection.execute(IN_ANY_ORDER)
        return rows

    def _dest_path(self, ticket_id: str) -> str:
        return f"{self._dest_root}/{ticket_id}"

    async def _mark(
        self,
        connection: Connection,
        linked: Mapping[str, Sequence[str]],
        *,
        resumed: Collection[str],
    ) -> list[Work]:
        pairs = [(item_id, ticket_id) for ticket_id, ids in linked.items() for item_id in ids]
        rows = await connection.fetch(
            _CLAIM,
            Stage.TICKETING.value,
            STATUS_OF[Stage.TICKETING].value,
            self._worker,
            self._lease_s,
            [item_id for item_id, _ in pairs],
            [ticket_id for _, ticket_id in pairs],
            [ticket_id in resumed for _, ticket_id in pairs],
            allowed_from(Stage.TICKETING),
        )
        ITEMS_CLAIMED.labels(Stage.TICKETING).inc(len(rows))
        albums = await known_albums(connection, {row["album_id"] for row in rows} - {None})
        by_ticket: defaultdict[str, list[Row]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: (row["priority"], row["seq"])):
            by_ticket[row["ticket_id"]].append(row)
        return [self._work(each, albums) for each in by_ticket.values()]

    def _work(self, rows: Sequence[Row], albums: dict[str, KnownAlbum]) -> Work:
        first = rows[0]
        return Work(
            items=tuple(item_of(row) for row in rows),
            ticket_id=first["ticket_id"],
            dest_path=self._dest_path(first["ticket_id"]),
            kind=first["kind"],
            album=_album(rows, albums) if first["kind"] == "album" else None,
            priority=first["priority"],
            resumed=first["resumed"],
        )

    async def keep(self, work: Work, *, for_s: float) -> bool:
        """Make the claims last this long from now; False when no item is ours any more."""
        async with self.database.connection() as connection:
            return await keep(connection, work.claims, for_s=for_s)

    async def record(self, work: Work, *, torrentino_id: str, priority: int) -> bool:
        """Note the ticket that Torrentino made; False when no item is ours any more."""
        async with self.database.transaction() as connection:
            moved = await connection.execute(
                _RECORD_ITEMS,
                [c.item_id for c in work.claims],
                [c.fence for c in work.claims],
                Stage.SEARCHING.value,
                STATUS_OF[Stage.SEARCHING].value,
                torrentino_id,
                allowed_from(Stage.SEARCHING),
            )
            if moved == "UPDATE 0":
                return False
            reached("ticketer.recording")
            opened = await connection.execute(
                _RECORD_TICKET, work.ticket_id, torrentino_id, priority
            )
            assert opened == "UPDATE 1", "only the ticketer that holds an item ends its intent"
            return True

    async def superseded(self, work: Work, *, torrentino_id: str) -> bool:
        """Whether this intent has ended, or has led to another ticket than this one."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_SUPERSEDED, work.ticket_id, torrentino_id))


_RECORD_ITEMS = """
UPDATE queue_items q
   SET stage = $3, status = $4, torrentino_ticket_id = $5, lease_until = NULL, lease_owner = NULL,
       actor = 'ticketer', reason = 'Torrentino has the ticket', updated_at = now()
  FROM unnest($1::text[], $2::bigint[]) AS held (id, fence)
 WHERE q.id = held.id AND q.fence = held.fence AND q.stage = ANY($6)
"""

_RECORD_TICKET = """
UPDATE tickets
   SET torrentino_id = $2, priority = $3, state = 'open', progressed_at = now(),
       next_poll_at = now()
 WHERE id = $1 AND state = 'intent'
"""

_SUPERSEDED = """
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE id = $1 AND (state = 'closed' OR torrentino_id <> $2))
"""

_CLOSE_INTENT = """
UPDATE tickets SET state = 'closed', closed_at = now(), remote_state = 'refused'
 WHERE id = $1 AND state = 'intent'
   AND NOT EXISTS (SELECT 1 FROM queue_items q WHERE q.ticket_id = $1 AND q.stage = 'ticketing')
"""


async def close_intent(connection: Connection, ticket_id: str) -> None:
    """Drop an intent that certainly led to no ticket, and whose items no ticketer holds."""
    await connection.execute(_CLOSE_INTENT, ticket_id)


def _album(rows: Sequence[Row], albums: dict[str, KnownAlbum]) -> KnownAlbum:
    """The album as the catalog had it; else what its items tell of it."""
    first = rows[0]
    return albums.get(first["album_id"]) or KnownAlbum(
        name=first["album_name"],
        artist=first["album_artist"] or first["main_artist"] or first["artist_name"],
        tracks=tuple(item_of(row).wanted.track for row in rows),
    )
