"""What every process last reported of the health of its dependencies.

A service knows only what it talks to itself: ingest never calls Torrentino, the poller never
looks at the disk. So each writes down what it knows, and the API shows it all.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from shared.db.pool import Connection, Database
from shared.errors import Dependency
from shared.health import Health

Json: TypeAlias = dict[str, Any]

# A process without a report for this long has ended or hangs.
_FRESH_S = 60.0

_SAY = """
INSERT INTO conditions (worker, dependency, ok, detail, since, circuit, alarm, next_try_at, said_at)
SELECT $1, c.dependency, c.ok, c.detail, c.since, c.circuit, c.alarm, c.next_try_at, now()
  FROM unnest($2::text[], $3::boolean[], $4::text[], $5::timestamptz[], $6::text[], $7::text[],
              $8::timestamptz[])
       AS c (dependency, ok, detail, since, circuit, alarm, next_try_at)
ON CONFLICT (worker, dependency) DO UPDATE
   SET ok = excluded.ok, detail = excluded.detail, since = excluded.since,
       circuit = excluded.circuit, alarm = excluded.alarm, next_try_at = excluded.next_try_at,
       said_at = now()
"""

# A report from the future is of a clock that was ahead; who wrote it and lives reports again.
_FORGET = """
DELETE FROM conditions
 WHERE said_at < now() - interval '1 day' OR said_at > now() + interval '1 minute'
"""

_FORGET_ME = "DELETE FROM conditions WHERE worker = $1"

# The worst report counts; of several equally bad ones the oldest.
_READ = """
SELECT DISTINCT ON (dependency) dependency, ok, detail, circuit, alarm,
       extract(epoch FROM since)::bigint AS since,
       extract(epoch FROM next_try_at)::bigint AS next_try_at
  FROM conditions
 WHERE said_at > now() - make_interval(secs => $1)
 ORDER BY dependency, ok, since
"""


# Where another worker finds it in order, the fault is one machine's.
_ALARM = """
SELECT detail FROM conditions c
 WHERE dependency = $1 AND alarm = 'configuration' AND NOT ok
   AND said_at > now() - make_interval(secs => $2)
   AND NOT EXISTS (SELECT 1 FROM conditions o
                    WHERE o.dependency = $1 AND o.ok
                      AND o.said_at > now() - make_interval(secs => $2))
 ORDER BY since
 LIMIT 1
"""


async def alarm(connection: Connection, dependency: Dependency) -> str | None:
    """What an operator has to change before this dependency works; None where that is not known.

    Every process that reports on it has to see it so.
    """
    detail: str | None = await connection.fetchval(_ALARM, dependency, _FRESH_S)
    return detail


async def read(connection: Connection) -> Json:
    """Each dependency as the process that is worst off with it sees it."""
    rows = await connection.fetch(_READ, _FRESH_S)
    fields = ("ok", "detail", "since", "circuit", "alarm", "next_try_at")
    return {row["dependency"]: {field: row[field] for field in fields} for row in rows}


class Conditions:
    """Writes the report of this process, and reads those of all."""

    def __init__(self, database: Database, health: Health, *, worker: str) -> None:
        self._database = database
        self._health = health
        self._worker = worker

    async def run_once(self) -> int:
        """Write down what this process knows now; returns 0, for there is never more to do.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        known = self._health.conditions()
        said = known.values()
        async with self._database.connection() as connection:
            await connection.execute(
                _SAY,
                self._worker,
                list(known),
                [condition.ok for condition in said],
                [condition.detail[:500] for condition in said],
                [condition.since for condition in said],
                [condition.state.name.lower() for condition in said],
                [condition.alarm for condition in said],
                [condition.next_try_at for condition in said],
            )
            await connection.execute(_FORGET)
        return 0

    async def read(self) -> Json:
        """Each dependency as `read` sees it, what this process knows included.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        await self.run_once()
        async with self._database.connection() as connection:
            return await read(connection)

    async def forget(self) -> None:
        """This process ends: nothing waits for what it was kept from.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        async with self._database.connection() as connection:
            await connection.execute(_FORGET_ME, self._worker)
