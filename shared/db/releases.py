"""Searches, the releases that they list, and what was not found.

One search serves every track of an album, and where it was for the artist, every album.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.choosing.model import Release
from shared.db.pool import Connection
from shared.torrentino.search import Found, Listed

# Renewed during a search: after a crash another ticketer may soon make the same search.
ASKING_S = 15.0
_HOUR_S = 3600.0
# After an answer without one of the indexers. Less than the hour after which that is asked again.
PARTIAL_FOR_S = 3000.0
# Days until what was not found is searched for again.
LADDER_DAYS = (1, 3, 7, 14, 30)


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What a search gave; `failed` are the indexers that could not be asked."""

    releases: tuple[Release, ...]
    links: tuple[tuple[str, ...], ...]
    failed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How often all ticketers together may search."""

    per_hour: int
    gap_s: float

    def most(self, *, background: bool) -> int:
        """Of an hour; background requests leave half of it to users."""
        return max(1, self.per_hour // 2) if background else self.per_hour


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Seconds until the next search may be made, 0 for now, and how many the hour has left."""

    wait_s: float
    left: int


# A ticketer that decides to search must see the decision of the one before.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('pezzottify.searches'))"

# An answer from before $3 is the one that nothing was found in. One that an indexer is missing in
# holds for $4 at most.
_IS_FRESH = """
s.answered_at > greatest(
    now() - make_interval(
        secs => CASE WHEN s.failed = '[]' THEN $2::float8 ELSE least($2, $4::float8) END),
    coalesce($3::timestamptz, '-infinity'))
"""

_FRESH = f"SELECT EXISTS (SELECT 1 FROM searches s WHERE s.query = $1 AND {_IS_FRESH})"  # noqa: S608

_READ = f"""
SELECT s.failed, r.title, r.size_bytes, r.seeders, r.info_hash, r.audio_files, r.magnet_uri,
       r.torrent_url
  FROM searches s LEFT JOIN releases r USING (query)
 WHERE s.query = $1 AND {_IS_FRESH}
 ORDER BY r.place
"""  # noqa: S608 (made of constants)

# A lease that is further ahead was written by a clock that was wrong.
_ASKED_NOW = """
SELECT least(extract(epoch FROM lease_until - now()), $2::float8) FROM searches
 WHERE query = $1 AND lease_until IS NOT NULL
"""

# Without those that a clock which was ahead has written: they would use up the budget until then.
# Not now(): another ticketer may have made a search since this transaction began.
_LAST_HOUR = "at > now() - interval '1 hour' AND at <= statement_timestamp()"
_MADE = f"""
SELECT count(*) AS made, now() AS now, max(at) AS last,
       (SELECT at FROM searches_made WHERE {_LAST_HOUR}
         ORDER BY at DESC OFFSET $1 - 1 LIMIT 1) AS first_of_most
  FROM searches_made WHERE {_LAST_HOUR}
"""  # noqa: S608 (made of constants)

_BEGIN = """
INSERT INTO searches (query, lease_until) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (query) DO UPDATE SET lease_until = excluded.lease_until
"""

_GO_ON_ASKING = """
UPDATE searches SET lease_until = now() + make_interval(secs => $2)
 WHERE query = $1 AND lease_until IS NOT NULL
"""

_NOTE = "INSERT INTO searches_made DEFAULT VALUES RETURNING at"

_ANSWERED = """
UPDATE searches SET answered_at = now(), lease_until = NULL, failed = $2 WHERE query = $1
"""

_GIVEN_UP = "UPDATE searches SET lease_until = NULL WHERE query = $1"
_UNMADE = "DELETE FROM searches_made WHERE at = $1"

_FORGET = "DELETE FROM releases WHERE query = $1"

_KEEP = """
INSERT INTO releases (query, place, title, size_bytes, seeders, info_hash, audio_files, magnet_uri,
                      torrent_url)
SELECT $1, r.place, r.title, r.size_bytes, r.seeders, r.info_hash, r.audio_files, r.magnet_uri,
       r.torrent_url
  FROM unnest($2::int[], $3::text[], $4::bigint[], $5::int[], $6::text[], $7::int[], $8::text[],
              $9::text[])
       AS r (place, title, size_bytes, seeders, info_hash, audio_files, magnet_uri, torrent_url)
"""

_NOT_FOUND = """
INSERT INTO not_found (wanted, times, told, next_at)
VALUES ($1, 1, $2, now() + make_interval(days => ($3::int[])[1]))
ON CONFLICT (wanted) DO UPDATE
   SET times = not_found.times + 1, told = excluded.told, at = now(),
       next_at = now() + make_interval(
           days => ($3::int[])[least(not_found.times + 1, cardinality($3::int[]))])
RETURNING extract(epoch FROM next_at - now())
"""

_REMEMBERED_AS_MISSING = """
SELECT wanted, told, extract(epoch FROM next_at - now()) AS left_s,
       extract(epoch FROM now() - at) AS age_s, next_at, at
  FROM not_found WHERE wanted = ANY($1)
"""

_FOUND = "DELETE FROM not_found WHERE wanted = ANY($1)"

_SEARCH_AGAIN = "UPDATE not_found SET next_at = now() WHERE wanted = $1 AND next_at > now()"


async def is_fresh(
    connection: Connection, query: str, *, ttl_s: float, since: datetime | None
) -> bool:
    """Whether this query was answered lately, and after `since`."""
    return bool(await connection.fetchval(_FRESH, query, ttl_s, since, PARTIAL_FOR_S))


async def read(
    connection: Connection, query: str, *, ttl_s: float, since: datetime | None
) -> Remembered | None:
    """What the search gave, or None when it was not made lately, or not after `since`."""
    rows = await connection.fetch(_READ, query, ttl_s, since, PARTIAL_FOR_S)
    if not rows:
        return None
    listed = [row for row in rows if row["title"] is not None]
    return Remembered(
        releases=tuple(
            Release(
                title=row["title"],
                size_bytes=row["size_bytes"],
                seeders=row["seeders"],
                audio_files=row["audio_files"],
                info_hash=row["info_hash"],
            )
            for row in listed
        ),
        links=tuple(tuple(filter(None, (row["torrent_url"], row["magnet_uri"]))) for row in listed),
        failed=tuple(rows[0]["failed"]),
    )


async def next_turn(
    connection: Connection, budget: Budget, *, background: bool, lock: bool = False
) -> Turn:
    """When the next search may be made. `lock`: it is about to be made."""
    if lock:
        await connection.execute(_LOCK)
    most = budget.most(background=background)
    row = await connection.fetchrow(_MADE, most)
    assert row is not None, "a select of counts has a row"
    waits = [0.0]
    if row["last"] is not None:
        waits.append(budget.gap_s - _seconds(row["now"], row["last"]))
    if row["first_of_most"] is not None:
        waits.append(_HOUR_S - _seconds(row["now"], row["first_of_most"]))
    return Turn(wait_s=max(waits), left=max(0, most - row["made"]))


async def asked_now_s(connection: Connection, query: str) -> float:
    """For how long another ticketer may still be making this search; 0: none is."""
    left = await connection.fetchval(_ASKED_NOW, query, ASKING_S)
    return max(0.0, float(left or 0))


async def begin(connection: Connection, query: str) -> datetime:
    """Record that this search is being made; returns the token for `give_up`."""
    await connection.execute(_BEGIN, query, ASKING_S)
    made: datetime = await connection.fetchval(_NOTE)
    return made


async def go_on_asking(connection: Connection, query: str) -> None:
    """Keep the lease of a search whose answer takes long."""
    await connection.execute(_GO_ON_ASKING, query, ASKING_S)


async def give_up(connection: Connection, query: str, made: datetime) -> None:
    """The indexers did not answer: nothing is stored, and the budget is not used."""
    await connection.execute(_GIVEN_UP, query)
    await connection.execute(_UNMADE, made)


async def keep(connection: Connection, query: str, found: Found) -> None:
    """Store the answer of a search, in place of the former one."""
    await connection.execute(_ANSWERED, query, list(found.failed))
    await connection.execute(_FORGET, query)
    await connection.execute(_KEEP, query, *_columns(found.releases))


async def not_found(connection: Connection, wanted: str, told: str) -> float:
    """Store that nothing was found; returns the seconds until the next search."""
    return float(await connection.fetchval(_NOT_FOUND, wanted, told, list(LADDER_DAYS)))


@dataclass(frozen=True, kw_only=True)
class Missing:
    """That nothing was found, until when that holds, and how long ago it was."""

    told: str
    left_s: float
    age_s: float
    until: datetime
    at: datetime


async def missing(connection: Connection, wanted: Sequence[str]) -> dict[str, Missing]:
    """What was not found when it was last searched for, also where that holds no longer."""
    rows = await connection.fetch(_REMEMBERED_AS_MISSING, list(wanted))
    return {
        row["wanted"]: Missing(
            told=row["told"],
            left_s=float(row["left_s"]),
            age_s=float(row["age_s"]),
            until=row["next_at"],
            at=row["at"],
        )
        for row in rows
    }


async def forget_missing(connection: Connection, wanted: Sequence[str]) -> None:
    """Delete what says that it was not found."""
    await connection.execute(_FOUND, list(wanted))


async def search_again(connection: Connection, wanted: str) -> None:
    """A user asks: the next search may be made now."""
    await connection.execute(_SEARCH_AGAIN, wanted)


def memory_of(*, album_id: str | None, track_id: str) -> str:
    """The key in `not_found`: one for an album, whichever of its tracks is wanted."""
    return f"album {album_id}" if album_id else f"track {track_id}"


def _seconds(now: datetime, then: datetime) -> float:
    return (now - then).total_seconds()


def _columns(releases: Sequence[Listed]) -> tuple[list[object], ...]:
    return (
        list(range(len(releases))),
        [each.title for each in releases],
        [each.size_bytes for each in releases],
        [each.seeders for each in releases],
        [each.info_hash for each in releases],
        [each.audio_files for each in releases],
        [each.magnet_uri for each in releases],
        [each.torrent_url for each in releases],
    )
