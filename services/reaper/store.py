"""The reaper's own SQL. Every statement is bounded, and skips rows that others have locked."""

from __future__ import annotations

from collections.abc import Collection

from shared.crashpoints import reached
from shared.db import moves
from shared.db.pool import Database
from shared.metrics import ITEMS, LEASES_RECOVERED, OUTBOX_AGE_SECONDS
from shared.states import LIVE_DOWNLOADS, DownloadState, Stage, in_sql

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

_COUNTS = "SELECT stage, priority, count(*) AS count FROM queue_items GROUP BY stage, priority"


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

    async def in_use(self, temp_names: Collection[str]) -> set[str]:
        """Those of these temporary files whose claim is not over."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_IN_USE, list(temp_names))
        return {row["name"] for row in rows}

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
        """Set the gauges that are counted from rows."""
        async with self._database.connection() as connection:
            counts = await connection.fetch(_COUNTS)
            outbox_age_s = await connection.fetchval(OUTBOX_AGE)
        OUTBOX_AGE_SECONDS.set(float(outbox_age_s))
        ITEMS.clear()
        for row in counts:
            ITEMS.labels(row["stage"], row["priority"]).set(row["count"])
