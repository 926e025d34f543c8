"""What the bridge keeps of the catalog server: our device there, its availability job, the ledger.

`problems` says in words what does not work although the server answers; it is shown in the
statistics.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.db.pool import Database

_ENSURE = "INSERT INTO bridge_server DEFAULT VALUES ON CONFLICT (one) DO NOTHING"

_SEED = "SELECT device_seed FROM bridge_server"

_PROBLEM = """
UPDATE bridge_server
   SET problems = CASE WHEN $2::text IS NULL THEN problems - $1::text
                       ELSE problems || jsonb_build_object($1::text, $2::text) END
"""

# What was published since the last run that is known to have ended well.
_CHANGES = """
SELECT s.available_at, s.available_run, s.availability_at, s.availability_warned_at,
       coalesce(s.available_took_s, 0) AS took_s,
       extract(epoch FROM now() - s.available_at) AS since_run_s,
       extract(epoch FROM now() - s.availability_warned_at) AS since_warning_s,
       extract(epoch FROM now() - least(c.oldest, w.at)) AS oldest_s,
       extract(epoch FROM now() - greatest(c.newest, w.at)) AS newest_s,
       c.changed + (w.at IS NOT NULL)::int AS changed
  FROM bridge_server s
  CROSS JOIN LATERAL (
       SELECT CASE WHEN s.wanted_at > coalesce(s.available_at, '-infinity')
                   THEN s.wanted_at END AS at) w
  CROSS JOIN LATERAL (
       SELECT count(*) AS changed, min(f.published_at) AS oldest, max(f.published_at) AS newest
         FROM media_files f
        WHERE f.published_at > coalesce(s.available_at, '-infinity')) c
"""

_ASKING = "UPDATE bridge_server SET availability_at = now()"

_NOT_ASKED = "UPDATE bridge_server SET availability_at = NULL"

_WARNED = "UPDATE bridge_server SET availability_warned_at = now()"

_RAN = """
UPDATE bridge_server
   SET available_at = availability_at, available_run = $1, available_took_s = $2,
       availability_at = NULL
 WHERE availability_at IS NOT NULL
"""

_WANTED = """
UPDATE bridge_server
   SET wanted_at = greatest(wanted_at, (SELECT plays_at FROM bridge_requests WHERE remote_id = $1))
"""

# A file that was published by us counts from then on, another one from when it was seen to play.
_COVERED = """
SELECT coalesce(s.available_at > coalesce(f.newest, b.plays_at), false) AS covered,
       f.newest IS NULL AS foreign_files,
       extract(epoch FROM now() - b.plays_at) AS plays_s
  FROM bridge_server s
  JOIN bridge_requests b ON b.remote_id = $1
 CROSS JOIN LATERAL (SELECT max(m.published_at) AS newest
                       FROM media_files m WHERE m.track_id = ANY($2)) f
"""

_NEW = """
SELECT track_id FROM media_files
 WHERE playable_at IS NULL AND published_at IS NOT NULL AND not_playable IS NULL
 ORDER BY track_id LIMIT $1
"""

_OLD = """
SELECT track_id FROM media_files
 WHERE playable_at IS NULL AND published_at IS NOT NULL AND track_id > $2
 ORDER BY track_id LIMIT $1
"""

# What it said a day ago.
_STALE = """
SELECT track_id FROM media_files
 WHERE playable_at < now() - make_interval(secs => $2) ORDER BY playable_at LIMIT $1
"""

_PLAYS = """
UPDATE media_files SET playable_at = now(), not_playable = NULL
 WHERE track_id = ANY($1)
   AND (playable_at IS NULL OR playable_at < now() - interval '1 minute')
"""

_DOES_NOT_PLAY = """
UPDATE media_files f SET playable_at = NULL, not_playable = n.reason
  FROM unnest($1::text[], $2::text[]) AS n (track_id, reason)
 WHERE f.track_id = n.track_id AND f.published_at IS NOT NULL
   AND (f.playable_at IS NOT NULL OR f.not_playable IS DISTINCT FROM n.reason)
"""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the server's availability flags do not know yet."""

    # Files that were published, or that were seen to play, since the last run.
    changed: int
    oldest_s: float
    newest_s: float
    # The last run that ended well; None before the first.
    run: str | None
    took_s: float
    since_run_s: float | None
    since_warning_s: float | None
    # Whether a run was asked for whose end is not known.
    asked: bool


@dataclass(frozen=True, kw_only=True)
class Covered:
    """Whether the flags know of all files of a request."""

    covered: bool
    plays_s: float


class ServerStore:
    """Reads and writes the row `bridge_server`, and the ledger's columns about playing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._said: dict[str, str | None] = {}

    async def device_uuid(self, *, url: str, user: str) -> str:
        """The id of our device there: one for an installation and an account."""
        async with self._database.connection() as connection:
            await connection.execute(_ENSURE)
            seed = await connection.fetchval(_SEED)
        return str(uuid.uuid5(uuid.UUID(str(seed)), f"{url} {user}"))

    async def say(self, what: str, problem: str | None) -> bool:
        """Record a problem, or that it is over (None); whether that is news."""
        if what in self._said and self._said[what] == problem:
            return False
        async with self._database.connection() as connection:
            await connection.execute(_ENSURE)
            await connection.execute(_PROBLEM, what, problem and problem[:1000])
        news = self._said.get(what) != problem
        self._said[what] = problem
        return news

    # --- the availability job

    async def changes(self) -> Changes:
        """What has changed since the last run."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_CHANGES)
            if row is None:
                await connection.execute(_ENSURE)
                row = await connection.fetchrow(_CHANGES)
        assert row is not None, "the row was just made"
        return Changes(
            changed=row["changed"],
            oldest_s=float(row["oldest_s"] or 0),
            newest_s=float(row["newest_s"] or 0),
            run=row["available_run"],
            took_s=row["took_s"],
            since_run_s=_seconds(row["since_run_s"]),
            since_warning_s=_seconds(row["since_warning_s"]),
            asked=row["availability_at"] is not None,
        )

    async def asking(self) -> None:
        """Record that a run is about to be asked for; it covers what is published until now."""
        await self._execute(_ASKING)

    async def not_asked(self) -> None:
        """Record that no run of ours is under way."""
        await self._execute(_NOT_ASKED)

    async def warned(self) -> None:
        """Record that the log has announced an expensive run."""
        await self._execute(_WARNED)

    async def ran(self, *, run: str, took_s: float | None) -> None:
        """Record that the run that was asked for has ended well."""
        async with self._database.connection() as connection:
            await connection.execute(_RAN, run, took_s)

    async def covered(self, remote_id: str, track_ids: Sequence[str]) -> Covered:
        """Whether a run has covered the files of a request; asks for one where ours are not."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_COVERED, remote_id, list(track_ids))
            if row is not None and row["foreign_files"]:
                await connection.execute(_WANTED, remote_id)
        assert row is not None, "the request has a row, and the session has made that of the server"
        return Covered(
            covered=row["covered"],
            plays_s=float(row["plays_s"] or 0),
        )

    # --- what plays

    async def to_ask(self, *, most: int, after: str | None = None) -> list[str]:
        """Published tracks that were never asked about, or, `after` an id, that did not play."""
        async with self._database.connection() as connection:
            if after is None:
                rows = await connection.fetch(_NEW, most)
            else:
                rows = await connection.fetch(_OLD, most, after)
        return [row["track_id"] for row in rows]

    async def to_ask_again(self, *, most: int, older_than_s: float) -> list[str]:
        """Tracks that played when they were asked about long ago."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_STALE, most, older_than_s)
        return [row["track_id"] for row in rows]

    async def record(self, plays: Sequence[str], does_not: Mapping[str, str]) -> None:
        """Write into the ledger what the server said; tracks without a file there are left out."""
        async with self._database.connection() as connection:
            if plays:
                await connection.execute(_PLAYS, sorted(plays))
            if does_not:
                tracks = sorted(does_not)
                await connection.execute(
                    _DOES_NOT_PLAY, tracks, [does_not[each] for each in tracks]
                )

    async def _execute(self, query: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(query)


def _seconds(value: object) -> float | None:
    return None if value is None else float(str(value))
