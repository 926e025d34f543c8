"""The reaper's own SQL. Every statement is bounded, and skips rows that others have locked."""

from __future__ import annotations

from collections.abc import Collection

from shared.crashpoints import reached
from shared.db import moves, refused_files
from shared.db.item_counts import count_items, sum_up
from shared.db.pool import Database
from shared.db.releases import LADDER_DAYS
from shared.metrics import ITEMS, LEASES_RECOVERED, OUTBOX_AGE_SECONDS
from shared.states import LIVE_DOWNLOADS, WAITING, DownloadState, Stage, in_sql

OUTBOX_AGE = """
SELECT coalesce(extract(epoch FROM now() - (
           SELECT at FROM events WHERE published_at IS NULL ORDER BY seq LIMIT 1)), 0)
"""

# Named {item_id}.{fence}.part and {item_id}.{fence}.{number}.part; an id has no dots.
_IN_USE = """
SELECT n.name
  FROM unnest($1::text[]) AS n (name)
  JOIN queue_items q ON q.id = split_part(n.name, '.', 1)
 WHERE q.lease_until IS NOT NULL AND q.fence::text = split_part(n.name, '.', 2)
"""

# A finished item goes with its whole history, never a part of it. Items that an open album
# request still counts stay until it is settled, as do events that are not yet published.
_PRUNE_ITEMS = f"""
DELETE FROM queue_items
 WHERE id = ANY(ARRAY(
       SELECT q.id FROM queue_items q
        WHERE q.completed_at < extract(epoch FROM now())::bigint - $1
          AND NOT EXISTS (SELECT 1 FROM events e
                           WHERE e.item_id = q.id AND e.published_at IS NULL)
          AND NOT EXISTS (SELECT 1 FROM item_requesters i JOIN requests r ON r.id = i.request_id
                           WHERE i.item_id = q.id AND r.kind = 'album' AND r.settled_at IS NULL)
          AND NOT EXISTS (SELECT 1 FROM tickets t
                           WHERE t.id = q.ticket_id
                             AND (t.state IN ({in_sql(LIVE_DOWNLOADS)}) OR t.collected_at IS NULL))
        LIMIT 500
          FOR UPDATE OF q SKIP LOCKED))
"""  # noqa: S608 (made of constants)

_PRUNE_REQUESTS = """
DELETE FROM requests
 WHERE id = ANY(ARRAY(
       SELECT r.id FROM requests r
        WHERE r.created_at < now() - make_interval(secs => $1)
          AND NOT EXISTS (SELECT 1 FROM item_requesters i WHERE i.request_id = r.id)
          AND NOT EXISTS (SELECT 1 FROM events e
                           WHERE e.request_id = r.id AND e.published_at IS NULL)
        LIMIT 500))
"""

_PRUNE_TICKETS = f"""
DELETE FROM tickets
 WHERE id = ANY(ARRAY(
       SELECT t.id FROM tickets t
        WHERE t.state = '{DownloadState.CLOSED}' AND t.collected_at IS NOT NULL
          AND t.closed_at < now() - make_interval(secs => $1)
          AND (t.torrentino_id IS NULL OR t.ticket_deleted_at IS NOT NULL)
          AND NOT EXISTS (SELECT 1 FROM queue_items q WHERE q.ticket_id = t.id)
          AND NOT EXISTS (SELECT 1 FROM refused_files r WHERE r.ticket_id = t.id)
        LIMIT 500))
"""  # noqa: S608 (made of constants)

_PRUNE_EVENTS = """
DELETE FROM events
 WHERE seq = ANY(ARRAY(
       SELECT seq FROM events
        WHERE item_id IS NULL AND request_id IS NULL AND published_at IS NOT NULL
          AND at < now() - make_interval(secs => $1)
        LIMIT 500))
"""

_PRUNE_BAD_SOURCES = "DELETE FROM bad_sources WHERE at < now() - make_interval(secs => $1)"

# A tracklist is used as long as there are items of its album.
_PRUNE_ALBUMS = """
DELETE FROM albums
 WHERE album_id = ANY(ARRAY(
       SELECT a.album_id FROM albums a
        WHERE a.seen_at < now() - make_interval(secs => $1)
          AND NOT EXISTS (SELECT 1 FROM queue_items q WHERE q.album_id = a.album_id)
        LIMIT 500
          FOR UPDATE SKIP LOCKED))
"""

_PRUNE_BLOCKED = "DELETE FROM blocklist WHERE at < now() - make_interval(secs => $1)"

_PRUNE_VERDICTS = "DELETE FROM file_verdicts WHERE checked_at < now() - make_interval(secs => $1)"

# The results of a search are used for RELEASES_TTL_H; the budget counts the last hour.
_PRUNE_SEARCHES = """
DELETE FROM searches
 WHERE query = ANY(ARRAY(
       SELECT query FROM searches
        WHERE coalesce(answered_at, lease_until, now())
              < now() - least(make_interval(secs => $1), interval '7 days')
        LIMIT 500))
"""

_PRUNE_NOT_FOUND = "DELETE FROM not_found WHERE next_at < now() - make_interval(secs => $1)"

_PRUNE_SEARCH_TIMES = """
DELETE FROM searches_made
 WHERE at < now() - greatest(make_interval(secs => $1), interval '1 day')
"""

_PRUNE_SCANS = "DELETE FROM scans WHERE finished_at < now() - make_interval(secs => $1)"

_NOW = "SELECT extract(epoch FROM now())::float8"

# A time that lies further ahead than its wait was written while the clock was ahead of what it
# shows now. Less than this is no harm, and no difference between two transactions.
_MARGIN = "interval '1 minute'"

# Read from an index that has by when each wait was written.
WRONG_WAITS = f"""
UPDATE queue_items q
   SET due_at = now() + make_interval(secs => q.wait_s), actor = 'reaper', updated_at = now()
 WHERE q.id = ANY(ARRAY(
       SELECT o.id FROM queue_items o
        WHERE o.lease_until IS NULL AND o.completed_at IS NULL
          AND o.stage IN ({in_sql(WAITING | {Stage.READY})})
          AND (o.due_at AT TIME ZONE 'UTC') - make_interval(secs => o.wait_s)
              > (now() + {_MARGIN}) AT TIME ZONE 'UTC'
        LIMIT 500
          FOR NO KEY UPDATE SKIP LOCKED))
"""  # noqa: S608 (made of constants)

# From now on they last as long as a lease: its worker renews it, or is dead.
WRONG_LEASES = f"""
UPDATE queue_items SET lease_until = now() + make_interval(secs => $1)
 WHERE id = ANY(ARRAY(
       SELECT id FROM queue_items
        WHERE lease_until > now() + make_interval(secs => $2) + {_MARGIN}
        LIMIT 500
          FOR NO KEY UPDATE SKIP LOCKED))
"""  # noqa: S608 (made of constants)

_WRONG_SCANS = f"""
UPDATE scans SET lease_until = now() + make_interval(secs => $1)
 WHERE lease_until > now() + make_interval(secs => $2) + {_MARGIN}
"""  # noqa: S608 (made of constants)

_WRONG_NOT_FOUND = f"""
UPDATE not_found n SET next_at = now() + l.step, at = least(n.at, now())
  FROM (SELECT wanted, make_interval(
                   days => ($1::int[])[least(times, cardinality($1::int[]))]) AS step
          FROM not_found) l
 WHERE l.wanted = n.wanted AND n.next_at > now() + l.step + {_MARGIN}
"""  # noqa: S608 (made of constants)

# The longest that a ticketer keeps an item for one call, whatever LEASE_S is.
_LONGEST_KEEP_S = 120.0


class Store:
    """Finds and removes what is no longer needed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def give_back(self) -> dict[Stage, int]:
        """Free every item whose lease has run out; how many, by the stage they were in."""
        async with self._database.connection() as connection:
            freed = await moves.take_back(connection, actor="reaper")
        for stage, count in freed.items():
            LEASES_RECOVERED.labels(stage).inc(count)
        return freed

    async def now_s(self) -> float:
        """The time of the database, in Unix seconds."""
        async with self._database.connection() as connection:
            return float(await connection.fetchval(_NOW))

    async def correct_times(self, *, lease_s: float) -> int:
        """Correct the waits and leases that were written while the clock was ahead; how many.

        A wait begins again with its own length, a lease with `lease_s`.
        """
        longest_s = max(lease_s, _LONGEST_KEEP_S)
        async with self._database.connection() as connection:
            done: list[str] = [
                await connection.execute(WRONG_WAITS),
                await connection.execute(WRONG_LEASES, lease_s, longest_s),
                await connection.execute(_WRONG_SCANS, lease_s, longest_s),
                await connection.execute(_WRONG_NOT_FOUND, list(LADDER_DAYS)),
            ]
        return sum(int(each.rsplit(maxsplit=1)[-1]) for each in done)

    async def in_use(self, temp_names: Collection[str]) -> set[str]:
        """Those of these temporary files whose claim is not over."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_IN_USE, list(temp_names))
        return {row["name"] for row in rows}

    async def expire_refused(self, *, older_than_s: float, keep_bytes: int) -> int:
        """Forget the refused files that are over age or beyond the size; returns how many."""
        async with self._database.connection() as connection:
            return await refused_files.expire(
                connection, older_than_s=older_than_s, keep_bytes=keep_bytes
            )

    async def recorded(self, file_ids: Collection[str]) -> set[str]:
        """Those of these refused files that are recorded."""
        async with self._database.connection() as connection:
            return await refused_files.known(connection, file_ids)

    async def prune(self, *, older_than_s: float) -> int:
        """Delete what finished long ago, a bounded number of rows; returns how many."""
        deleted = 0
        async with self._database.connection() as connection:
            for query in (
                _PRUNE_ITEMS,
                _PRUNE_REQUESTS,
                _PRUNE_TICKETS,
                _PRUNE_EVENTS,
                _PRUNE_BAD_SOURCES,
                _PRUNE_ALBUMS,
                _PRUNE_SCANS,
                _PRUNE_BLOCKED,
                _PRUNE_VERDICTS,
                _PRUNE_SEARCHES,
                _PRUNE_NOT_FOUND,
                _PRUNE_SEARCH_TIMES,
            ):
                done: str = await connection.execute(query, older_than_s)
                reached("reaper.pruning")
                deleted += int(done.rsplit(maxsplit=1)[-1])
        return deleted

    async def measure(self) -> None:
        """Set the gauges of items and of the outbox."""
        async with self._database.connection() as connection:
            await sum_up(connection)
            counts = await count_items(connection)
            outbox_age_s = await connection.fetchval(OUTBOX_AGE)
        OUTBOX_AGE_SECONDS.set(float(outbox_age_s))
        ITEMS.clear()
        for (stage, priority), count in counts.items():
            ITEMS.labels(stage, priority).set(count)
