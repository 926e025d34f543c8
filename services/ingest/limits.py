"""How much one user may ask for. Both figures are counted from rows, never kept."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db.pool import Connection


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. `user_id` None is the catalog server or this service itself."""

    user_id: str | None
    unlimited: bool


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What every user is allowed."""

    max_per_day: int
    max_queue: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one user has used."""

    requests_today: int
    in_queue: int


_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pezzottify.user.' || $1, 0))"

_USAGE = """
SELECT (SELECT count(*) FROM requests
         WHERE user_id = $1 AND charged
           AND created_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
           AS requests_today,
       (SELECT count(DISTINCT q.id) FROM item_requesters r JOIN queue_items q ON q.id = r.item_id
         WHERE r.user_id = $1 AND r.withdrawn_at IS NULL
           AND q.status IN ('PENDING', 'DOWNLOADING')) AS in_queue
"""


async def lock(connection: Connection, caller: Caller) -> None:
    """Let this user's requests be decided one after another, for the rest of the transaction."""
    if caller.user_id is not None:
        await connection.execute(_LOCK, caller.user_id)


async def usage(connection: Connection, caller: Caller) -> Usage:
    """What the user has used up to this moment, this transaction included."""
    row = await connection.fetchrow(_USAGE, caller.user_id)
    assert row is not None, "a select of counts has a row"
    return Usage(requests_today=row["requests_today"], in_queue=row["in_queue"])
