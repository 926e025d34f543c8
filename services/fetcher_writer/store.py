"""What the fetcher-writer reads and writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import structlog

from services.fetcher_writer.delivery.base import DeliveryName
from services.fetcher_writer.disk_budget import MIB, Room
from services.fetcher_writer.work import ACTOR, Competing, Other, Ticket, Work, works
from shared.db import moves
from shared.db.albums import known_albums
from shared.db.claims import Claim
from shared.db.pool import IN_ANY_ORDER, IN_INDEX_ORDER, Connection, Database, Row
from shared.errors import DependencyDown, Misconfigured, Stale
from shared.metrics import ITEMS_CLAIMED
from shared.states import COLLECTING, WRITING, DownloadState, Stage, in_sql
from shared.tracks import CatalogTrack

log = structlog.get_logger()

# When a file that is larger than the whole disk is tried again.
_PUT_OFF_S = 3600.0
# Items of one ticket that are claimed at once; the next claim takes the rest.
_MOST_TOGETHER = 200
# The longest wait before a folder that could not be removed is tried again.
_LONGEST_CLEAN_S = 3600.0


# Who counts what is reserved must see what the one before has claimed.
_LOCK_ROOM = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.media_room'))"


def share(names: str, times: str) -> str:
    """SQL for `s.bytes`: an item's share of what its ticket `t` has, in bytes.

    It counts as often as its delivery writes the file: `times` are the numbers for the `names` of
    the deliveries. A ticket of unknown size counts nothing.
    """
    # The join may come before the filter that leaves out tickets without items.
    return f"""
  CROSS JOIN LATERAL (
      SELECT coalesce(t.final_size_bytes, t.size_bytes, 0)
             * ({times}::int[])[array_position({names}::text[], t.delivery)]
             / greatest(count(*), 1) AS bytes
        FROM queue_items o WHERE o.ticket_id = t.id) s"""  # noqa: S608 (made of parameters' names)


# What the holders of items have yet to write.
_RESERVED = f"""
SELECT coalesce(sum(greatest(r.bytes - r.written, 0)), 0)::bigint FROM (
    SELECT sum(s.bytes) AS bytes, coalesce(sum(p.bytes), 0) AS written
      FROM queue_items q
      JOIN tickets t ON t.id = q.ticket_id {share("$3", "$4")}
      LEFT JOIN (
          SELECT split_part(n.name, '.', 1) AS id, split_part(n.name, '.', 2) AS fence,
                 sum(n.bytes) AS bytes
            FROM unnest($1::text[], $2::bigint[]) AS n (name, bytes)
           GROUP BY 1, 2) p ON p.id = q.id AND p.fence = q.fence::text
     WHERE q.stage IN ({in_sql(WRITING)}) AND q.released_file IS NULL
     GROUP BY t.id) r
"""  # noqa: S608 (made of constants)

# What is ready and fits by itself, with its share of its ticket's size. $2 NULL: all fit.
_READY = f"""
SELECT q.id, q.ticket_id, s.bytes
  FROM queue_items q
  JOIN tickets t ON t.id = q.ticket_id {share("$3", "$4")}
 WHERE q.stage IN ({in_sql([Stage.READY])}) AND q.due_at <= now() AND t.delivery = ANY($3)
   AND q.released_file IS NULL
   AND ($2::bigint IS NULL OR s.bytes <= $2)
"""  # noqa: S608 (made of constants)

# Of one priority, what was not handed back comes first.
_MOST_URGENT = """
 ORDER BY q.priority, (q.hand_backs > 0), q.seq
 LIMIT $1
   FOR NO KEY UPDATE OF q SKIP LOCKED
"""

_DUE = f"{_READY} {_MOST_URGENT}"

# Those of the same tickets.
_DUE_AS_WELL = f"{_READY} AND q.ticket_id = ANY($5) AND NOT q.id = ANY($6) {_MOST_URGENT}"

_WORK = """
SELECT i.id, i.fence, i.track_id, i.duration_ms, i.album_id, i.chosen_file, i.hand_backs,
       i.ticket_id, t.kind, i.released_file,
       (SELECT r.released_by FROM refused_files r WHERE r.id = i.released_file) AS released_by,
       t.delivery, CASE t.delivery WHEN 'torrent' THEN t.torrent_path ELSE t.dest_path END AS path,
       t.info_hash, t.torrent_title, t.files_placed, t.final_size_bytes, t.file_mappings,
       t.processed_files, t.way, t.size_bytes, t.remote_state
  FROM queue_items i JOIN tickets t ON t.id = i.ticket_id
 WHERE i.id = ANY($1)
 ORDER BY i.priority, i.seq
"""

# Files that an administrator has released: they are here already.
_RELEASED = f"""
SELECT q.id FROM queue_items q
 WHERE q.stage IN ({in_sql([Stage.READY])}) AND q.due_at <= now() AND q.released_file IS NOT NULL
{_MOST_URGENT}
"""  # noqa: S608 (made of constants)

_LEAST_WAITING = f"""
SELECT min(s.bytes)
  FROM queue_items q
  JOIN tickets t ON t.id = q.ticket_id {share("$2", "$3")}
 WHERE q.stage IN ({in_sql([Stage.READY])}) AND q.due_at <= now() AND s.bytes > $1
   AND q.released_file IS NULL
"""  # noqa: S608 (made of constants)

# More than the whole disk: told once, and looked at again when a larger one may be there.
_NEVER_FITTING = f"""
UPDATE queue_items q
   SET due_at = now() + make_interval(secs => $2), wait_s = $2, actor = 'fetcher_writer',
       updated_at = now(),
       reason = 'waits for a larger disk: its file may take ' || s.bytes / 1048576
                || ' MiB, all of the media root has ' || $1 / 1048576
  FROM tickets t {share("$3", "$4")}
 WHERE t.id = q.ticket_id AND q.stage IN ({in_sql([Stage.READY])})
   AND q.due_at <= now() AND s.bytes > $1 AND q.released_file IS NULL
RETURNING q.id
"""  # noqa: S608 (made of constants)

_OUT_OF_SIGHT = f"""
SELECT 1 FROM queue_items q JOIN tickets t ON t.id = q.ticket_id
 WHERE q.stage IN ({in_sql([Stage.READY])}) AND q.due_at <= now() AND NOT t.delivery = ANY($1)
   AND q.released_file IS NULL
 LIMIT 1
"""  # noqa: S608 (made of constants)

_ITEMS_OF_TICKET = """
SELECT track_id, track_name, coalesce(main_artist, artist_name) AS artist, disc_number,
       track_number, duration_ms
  FROM queue_items WHERE ticket_id = $1
 ORDER BY seq
 LIMIT 1000
"""

WRITTEN_BY = f"""
SELECT 1 FROM queue_items
 WHERE id = $1 AND fence = $2 AND stage IN ({in_sql(WRITING)})
   FOR NO KEY UPDATE
"""  # noqa: S608 (made of constants)

_CONVERTED = f"""
UPDATE queue_items SET converted_pct = $3, updated_at = now()
 WHERE id = $1 AND fence = $2 AND stage IN ({in_sql([Stage.CONVERTING])})
"""  # noqa: S608 (made of constants)

# Other downloads of which items wait for files, or have their files collected: these are in the
# place. Some of them, whichever, so that it is not always the same that are asked.
_OTHERS = f"""
SELECT t.id, CASE t.delivery WHEN 'torrent' THEN t.torrent_path ELSE t.dest_path END AS path,
       t.size_bytes
  FROM tickets t
 WHERE t.delivery = $1 AND t.id <> $2
   AND t.id IN (
       (SELECT q.ticket_id FROM queue_items q WHERE q.stage IN ({in_sql([Stage.READY])})
           AND q.released_file IS NULL
         ORDER BY q.priority, q.seq LIMIT 300)
       UNION
       (SELECT q.ticket_id FROM queue_items q
         WHERE q.lease_until IS NOT NULL AND q.stage IN ({in_sql(WRITING)})
           AND q.released_file IS NULL LIMIT 300))
 ORDER BY random()
 LIMIT $3
"""  # noqa: S608 (made of constants)

_PLACE_KNOWN = "SELECT 1 FROM places WHERE name = $1 AND identity = $2"

_KNOW_PLACE = """
INSERT INTO places (name, identity) VALUES ($1, $2)
ON CONFLICT (name, identity) DO UPDATE SET seen_at = now()
"""

# Folders of ended tickets that no item still collects from.
_TO_CLEAN = f"""
SELECT t.id, t.dest_path FROM tickets t
 WHERE t.state = '{DownloadState.CLOSED}' AND t.way = 'tickets' AND t.collected_at IS NULL
   AND t.clean_at <= now()
   AND NOT EXISTS (SELECT 1 FROM queue_items q
                    WHERE q.ticket_id = t.id
                      AND q.stage IN ({in_sql(COLLECTING)}))
 ORDER BY t.closed_at
 LIMIT 50
"""  # noqa: S608 (made of constants)

# Each failure doubles the wait, up to $2 seconds.
_CLEAN_LATER = """
UPDATE tickets
   SET clean_at = now() + make_interval(secs => least($2, 10 * 2.0 ^ least(clean_tries, 20))),
       clean_tries = clean_tries + 1
 WHERE id = ANY($1)
"""

_CLEANED = "UPDATE tickets SET collected_at = now() WHERE id = ANY($1) AND collected_at IS NULL"


class Store:
    """The fetcher-writer's side of the queue; it claims only what its `deliveries` can collect."""

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float,
        worker: str,
        deliveries: Collection[DeliveryName],
    ) -> None:
        self.database = database
        self._lease_s = lease_s
        self._worker = worker
        self._deliveries = tuple(deliveries)

    async def claim(self, limit: int, room: Room | None = None) -> list[Work]:
        """Claim up to `limit` items whose file is ready, most urgent first.

        Other ready items of their tickets are claimed with them, for the files of one ticket are
        matched together. Only what fits into `room`, beside what all workers have claimed, is
        taken; None: files take no space. Released files come first, by themselves.

        Raises:
            DependencyDown: files wait, and none of them fits now.
            Misconfigured: files wait in a place that no setting names.
        """
        async with self.database.transaction() as connection:
            usable_bytes = None if room is None else await _unreserved(connection, room)
            ids = [row["id"] for row in await connection.fetch(_RELEASED, limit)]
            ids = ids or await self._due(connection, limit, usable_bytes, room)
            rows = await self._take(connection, ids) if ids else []
            if not rows:
                await self._explain(connection, usable_bytes, room)
        ITEMS_CLAIMED.labels(Stage.FETCHING).inc(len(rows))
        return works(rows)

    async def _due(
        self, connection: Connection, limit: int, usable_bytes: int | None, room: Room | None
    ) -> list[str]:
        times = [0 if room is None else room.times.get(each, 0) for each in self._deliveries]
        ways = (list(self._deliveries), times)
        await connection.execute(IN_INDEX_ORDER)
        first = await connection.fetch(_DUE, limit, usable_bytes, *ways)
        await connection.execute(IN_ANY_ORDER)
        together = _fitting(first, usable_bytes)
        if not together:
            return []
        tickets = sorted({row["ticket_id"] for row in together})
        ids = [row["id"] for row in first]
        more = await connection.fetch(
            _DUE_AS_WELL, _MOST_TOGETHER, usable_bytes, *ways, tickets, ids
        )
        return [row["id"] for row in _fitting([*together, *more], usable_bytes)]

    async def _take(self, connection: Connection, ids: Sequence[str]) -> list[Row]:
        claimed = await moves.claim_to_collect(
            connection, ids, worker=self._worker, lease_s=self._lease_s, actor=ACTOR
        )
        return await connection.fetch(_WORK, list(claimed))

    async def _explain(
        self, connection: Connection, usable_bytes: int | None, room: Room | None
    ) -> None:
        """Raise why nothing was claimed, if items wait."""
        if room is not None:
            least_bytes = await connection.fetchval(_LEAST_WAITING, usable_bytes, *room.ways())
            if least_bytes is not None:
                raise DependencyDown("space", _no_room(least_bytes, usable_bytes or 0))
        if await connection.fetchval(_OUT_OF_SIGHT, list(self._deliveries)):
            raise Misconfigured(
                "incoming",
                "files wait in the torrents' own folder: set TORRENTINO_DOWNLOADS_ROOT and"
                " TORRENTINO_DOWNLOADS_MOUNT here as the poller has them",
            )

    async def put_off(self, room: Room) -> int:
        """Let items wait that do not fit on the empty disk; returns how many."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _NEVER_FITTING, room.total_bytes, _PUT_OFF_S, *room.ways()
            )
        for row in rows:
            log.warning("larger_than_the_disk", item_id=row["id"], total_bytes=room.total_bytes)
        return len(rows)

    async def competing(self, ticket: Ticket, album_ids: Collection[str]) -> Competing:
        """The tracks that the ticket's files may be, wanted or not: those of these albums.

        Where an album's tracklist is not known: the tracks of the ticket's items.
        """
        async with self.database.connection() as connection:
            albums = await known_albums(connection, album_ids)
            items = await connection.fetch(_ITEMS_OF_TICKET, ticket.id)
        tracks = {track.id: track for album in albums.values() for track in album.tracks}
        # The item's own data come first: its file is verified against them.
        tracks |= {row["track_id"]: _track(row) for row in items}
        names = {album.name for album in albums.values()} if len(album_ids) == 1 else set()
        return Competing(tracks=tuple(tracks.values()), album=next(iter(names), None))

    async def others(self, delivery: DeliveryName, ticket_id: str | None, most: int) -> list[Other]:
        """Up to `most` other downloads whose files should be in the place of this delivery."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_OTHERS, delivery, ticket_id or "", most)
        return [
            Other(path=row["path"], size_bytes=row["size_bytes"]) for row in rows if row["path"]
        ]

    async def is_known(self, delivery: DeliveryName, identity: str) -> bool:
        """Whether files of a download were seen there, by any worker at any time."""
        async with self.database.connection() as connection:
            return bool(await connection.fetchval(_PLACE_KNOWN, delivery, identity))

    async def know(self, delivery: DeliveryName, identity: str) -> None:
        """Note that files of a download were seen there."""
        async with self.database.connection() as connection:
            await connection.execute(_KNOW_PLACE, delivery, identity)

    async def leave_to_a_person(
        self, claim: Claim, *, reason: str, evidence: Mapping[str, object]
    ) -> bool:
        """Let an administrator say which file the item is; False: the claim is lost."""
        async with self.database.connection() as connection:
            moved = await moves.ask_for_choice(connection, [(claim, reason, evidence)], actor=ACTOR)
        return bool(moved)

    async def converted(self, claim: Claim, percent: float) -> None:
        """Write the conversion's percentage; nothing happens when the claim has ended."""
        async with self.database.connection() as connection:
            await connection.execute(_CONVERTED, claim.item_id, claim.fence, percent)

    async def to_clean(self) -> dict[str, str]:
        """Incoming folders that no item needs any more: dest_path by ticket id."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_TO_CLEAN)
        return {row["id"]: row["dest_path"] for row in rows}

    async def clean_later(self, ticket_ids: Collection[str]) -> None:
        """Their folders cannot be removed now: the next try is later each time."""
        async with self.database.connection() as connection:
            await connection.execute(_CLEAN_LATER, list(ticket_ids), _LONGEST_CLEAN_S)

    async def cleaned(self, ticket_ids: Collection[str]) -> None:
        """Note that their folders are removed, or that this delivery removes none."""
        async with self.database.connection() as connection:
            await connection.execute(_CLEANED, list(ticket_ids))


def _fitting(rows: Sequence[Row], usable_bytes: int | None) -> list[Row]:
    """As many of them, in their order, as fit together."""
    if usable_bytes is None:
        return list(rows)
    found, total_bytes = [], 0
    for row in rows:
        total_bytes += row["bytes"]
        if total_bytes > usable_bytes:
            break
        found.append(row)
    return found


def _track(row: Row) -> CatalogTrack:
    return CatalogTrack(
        id=row["track_id"],
        title=row["track_name"],
        artist=row["artist"],
        disc=row["disc_number"],
        number=row["track_number"],
        duration_ms=row["duration_ms"],
    )


async def _unreserved(connection: Connection, room: Room) -> int:
    """Bytes that no claim has reserved; no other worker counts them until the transaction ends."""
    await connection.execute(_LOCK_ROOM)
    reserved: int = await connection.fetchval(
        _RESERVED, list(room.parts), list(room.parts.values()), *room.ways()
    )
    return max(0, room.usable_bytes - reserved)


def _no_room(least_bytes: int, usable_bytes: int) -> str:
    return (
        f"the files that wait need {least_bytes // MIB + 1} MiB or more, but beyond"
        f" MIN_FREE_DISK_MB and what is being fetched only {usable_bytes // MIB} MiB are free"
    )


async def hold(connection: Connection, claim: Claim) -> None:
    """Lock the item for the rest of the transaction, if this claim still holds it.

    Raises:
        Stale: another worker has it, or it was cancelled.
    """
    if await connection.fetchval(WRITTEN_BY, claim.item_id, claim.fence) is None:
        raise Stale(f"item {claim.item_id} is no longer held by fence {claim.fence}")
