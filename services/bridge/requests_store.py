"""The rows of `bridge_requests`. Every change of a state is guarded by the transition table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.bridge.catalog_server import RemoteRequest
from shared.db.pool import Database, Row
from shared.events import ContentKind
from shared.states import (
    ACTIVE_STATUSES,
    LISTED_SERVER_REQUESTS,
    ServerRequestState,
    allowed_from,
    values,
)

# A reset of the count of listings that lacked it belongs to each row that is listed.
MISSED_UNTIL_GONE = 2
MOST = 500
ANNOUNCE_S = 15.0
ANNOUNCE_MOST_S = 600.0
REJECTED_S = 3600.0

COLUMNS = """remote_id, request_id, kind, content_id, user_id, priority, state, round, problem,
       due_at, receipt_at, receipt_tries, receipt_job, audio_uris"""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A request of the server that the bridge has taken over."""

    remote_id: str
    request_id: str
    kind: ContentKind
    content_id: str
    user_id: str | None
    priority: int
    state: ServerRequestState
    problem: str | None
    receipt_tries: int
    receipt_job: str | None
    audio_uris: Mapping[str, str | None] | None


# --- intake

_INSERT = f"""
INSERT INTO bridge_requests (remote_id, request_id, kind, content_id, user_id, priority,
                             content_name, artist_name, requested_at)
SELECT n.* FROM unnest($1::text[], $1::text[], $2::text[], $3::text[], $4::text[], $5::int[],
                       $6::text[], $7::text[], $8::bigint[])
         AS n (remote_id, request_id, kind, content_id, user_id, priority, content_name,
               artist_name, requested_at)
  LEFT JOIN bridge_requests b ON b.remote_id = n.remote_id
 -- Known ones are listed every few seconds: a conflict would lock, and so write, each of them.
 WHERE b.remote_id IS NULL OR b.state = $9 OR (b.state = $12 AND b.how <> 'left')
ON CONFLICT (remote_id) DO UPDATE
   SET state = CASE bridge_requests.state WHEN $9 THEN $10 ELSE $11 END,
       missed = 0, how = NULL, ended_at = NULL, due_at = now(),
       -- An id that was withdrawn cannot be asked for again.
       round = bridge_requests.round + (bridge_requests.state = $9)::int,
       request_id = CASE bridge_requests.state
                    WHEN $9 THEN bridge_requests.remote_id || '.' || bridge_requests.round + 1
                    ELSE bridge_requests.request_id END,
       asked_at = now(), announced = 0
 WHERE bridge_requests.state = $9 OR (bridge_requests.state = $12 AND bridge_requests.how <> 'left')
RETURNING {COLUMNS}
"""  # noqa: S608 (made of constants)

# A row that is younger than the listing may have been written by another bridge.
_SEEN = """
UPDATE bridge_requests SET missed = CASE WHEN remote_id = ANY($1) THEN 0 ELSE missed + 1 END
 WHERE (state = ANY($2) OR how = 'left') AND found_at < $3
   AND (missed > 0 OR remote_id <> ALL($1))
"""

_WITHDRAW = f"""
UPDATE bridge_requests SET state = $1, problem = $2, due_at = now(), announced = 0
 WHERE state = ANY($3) AND missed >= $4
RETURNING {COLUMNS}
"""  # noqa: S608 (made of constants)

# --- announcing

_ACCEPTED = f"""
UPDATE bridge_requests b SET state = $1, problem = NULL, due_at = now()
 WHERE b.state = $2
   AND EXISTS (SELECT 1 FROM requests r WHERE r.id = b.request_id AND r.source <> 'withdrawn')
RETURNING {COLUMNS}
"""  # noqa: S608 (made of constants)

_REJECTED = """
UPDATE bridge_requests b
   SET state = $1, problem = e.reason, due_at = now() + make_interval(secs => $3)
  FROM (SELECT DISTINCT ON (f.remote_id) f.remote_id, e.data ->> 'reason' AS reason
          FROM bridge_requests f
          JOIN events e ON e.kind = 'request.rejected'
                       AND e.data ->> 'request_id' = f.request_id AND e.at >= f.asked_at
         WHERE f.state = $2
         ORDER BY f.remote_id, e.seq DESC) e
 WHERE b.remote_id = e.remote_id AND b.state = $2
RETURNING b.remote_id, b.problem
"""

_REFUSE = """
UPDATE bridge_requests
   SET state = $2, problem = $3, due_at = now() + make_interval(secs => $5)
 WHERE remote_id = $1 AND state = ANY($4)
"""

_ASK_AGAIN = """
UPDATE bridge_requests SET state = $1, due_at = now(), asked_at = now(), announced = 0
 WHERE state = ANY($2) AND state = $3 AND due_at <= now()
"""

# The intent: what is announced now is announced again after a while, unless ingest decides.
_TO_ANNOUNCE = f"""
UPDATE bridge_requests
   SET announced = announced + 1,
       due_at = now() + make_interval(secs => least($2 * power(2, least(announced, 16)), $3))
 WHERE remote_id IN (SELECT remote_id FROM bridge_requests
                      WHERE state = $1 AND due_at <= now()
                      ORDER BY priority, requested_at, remote_id LIMIT {MOST}
                        FOR NO KEY UPDATE SKIP LOCKED)
RETURNING {COLUMNS}
"""  # noqa: S608 (made of constants)

# Until ingest has withdrawn all of it, and also where it comes back to life later.
_TO_CANCEL = f"""
UPDATE bridge_requests b
   SET announced = announced + 1,
       due_at = now() + make_interval(secs => least($2 * power(2, least(announced, 16)), $3))
 WHERE b.remote_id IN (
       SELECT c.remote_id FROM bridge_requests c
        WHERE c.state = $1 AND c.due_at <= now()
          AND (NOT EXISTS (SELECT 1 FROM requests r WHERE r.id = c.request_id)
               OR EXISTS (SELECT 1 FROM item_requesters i JOIN queue_items q ON q.id = i.item_id
                           WHERE i.request_id = c.request_id AND i.withdrawn_at IS NULL
                             AND q.status = ANY($4)))
        LIMIT {MOST} FOR NO KEY UPDATE SKIP LOCKED)
RETURNING {COLUMNS}
"""  # noqa: S608 (made of constants)

_NOT_ANNOUNCED = """
UPDATE bridge_requests SET announced = greatest(announced - 1, 0), due_at = now()
 WHERE request_id = ANY($1) AND state IN ($2, $3)
"""

# No wait is longer than that after a refusal: one that is was written by a clock that was ahead.
_WRONG_WAITS = """
UPDATE bridge_requests SET due_at = now()
 WHERE due_at > now() + make_interval(secs => $1) + interval '1 minute'
"""

# An id that the server still has must stay known, or it would be asked for again.
_PRUNE = f"""
DELETE FROM bridge_requests
 WHERE remote_id IN (SELECT remote_id FROM bridge_requests
                      WHERE state = ANY($1) AND (how IS DISTINCT FROM 'left' OR missed >= $3)
                        AND coalesce(ended_at, due_at) < now() - make_interval(secs => $2)
                      LIMIT {MOST})
"""  # noqa: S608 (made of constants)


class RequestsStore:
    """Reads and writes the requests that were taken over."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # --- intake

    async def now(self) -> object:
        """The database's time."""
        async with self.database.connection() as connection:
            return await connection.fetchval("SELECT now()")

    async def take(self, found: Sequence[RemoteRequest]) -> list[Taken]:
        """Write those of these waiting requests that are new, or that came back; which they are."""
        if not found:
            return []
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _INSERT,
                [each.id for each in found],
                [each.kind for each in found],
                [each.content_id for each in found],
                [each.user_id for each in found],
                [each.priority for each in found],
                [each.content_name for each in found],
                [each.artist_name for each in found],
                [each.created_at for each in found],
                ServerRequestState.WITHDRAWN,
                ServerRequestState.FOUND,
                ServerRequestState.FOLLOWED,
                ServerRequestState.ENDED,
            )
        return [taken(row) for row in rows]

    async def listed(self, ids: Collection[str], *, since: object) -> list[Taken]:
        """Count a complete listing, begun at `since`; those that two in a row lacked, withdrawn."""
        async with self.database.transaction() as connection:
            await connection.execute(_SEEN, list(ids), values(LISTED_SERVER_REQUESTS), since)
            rows = await connection.fetch(
                _WITHDRAW,
                ServerRequestState.WITHDRAWN,
                "it was deleted or completed at the catalog server by another",
                allowed_from(ServerRequestState.WITHDRAWN),
                MISSED_UNTIL_GONE,
            )
        return [taken(row) for row in rows]

    # --- announcing

    async def decided(self) -> tuple[list[Taken], list[Row]]:
        """Record what ingest has decided: the requests that it accepted, and that it refused."""
        found, rejected = ServerRequestState.FOUND, ServerRequestState.REJECTED
        async with self.database.connection() as connection:
            accepted = await connection.fetch(_ACCEPTED, ServerRequestState.FOLLOWED, found)
            refused = await connection.fetch(_REJECTED, rejected, found, REJECTED_S)
            await connection.execute(_ASK_AGAIN, found, allowed_from(found), rejected)
        return [taken(row) for row in accepted], refused

    async def refuse(self, request: Taken, why: str) -> None:
        """Record that a request can never be announced."""
        rejected = ServerRequestState.REJECTED
        async with self.database.connection() as connection:
            await connection.execute(
                _REFUSE, request.remote_id, rejected, why, allowed_from(rejected), REJECTED_S
            )

    async def to_announce(self) -> list[Taken]:
        """The requests to announce now; each is due again later, should the message be lost."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _TO_ANNOUNCE, ServerRequestState.FOUND, ANNOUNCE_S, ANNOUNCE_MOST_S
            )
        return [taken(row) for row in rows]

    async def to_cancel(self) -> list[Taken]:
        """The withdrawn requests whose cancellation ingest has not carried out yet."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _TO_CANCEL,
                ServerRequestState.WITHDRAWN,
                ANNOUNCE_S,
                ANNOUNCE_MOST_S,
                values(ACTIVE_STATUSES),
            )
        return [taken(row) for row in rows]

    async def not_announced(self, request_ids: Sequence[str]) -> None:
        """NATS did not take these messages: they are due again at once."""
        async with self.database.connection() as connection:
            await connection.execute(
                _NOT_ANNOUNCED,
                list(request_ids),
                ServerRequestState.FOUND,
                ServerRequestState.WITHDRAWN,
            )

    async def prune(self, *, older_than_s: float) -> int:
        """Forget requests that were ended long ago, and end waits of a wrong clock; how many."""
        over = [ServerRequestState.ENDED, ServerRequestState.WITHDRAWN]
        async with self.database.connection() as connection:
            await connection.execute(_WRONG_WAITS, REJECTED_S)
            done: str = await connection.execute(
                _PRUNE, values(over), older_than_s, MISSED_UNTIL_GONE
            )
        return int(done.rsplit(maxsplit=1)[-1])


def taken(row: Row) -> Taken:
    return Taken(
        remote_id=row["remote_id"],
        request_id=row["request_id"],
        kind=row["kind"],
        content_id=row["content_id"],
        user_id=row["user_id"],
        priority=row["priority"],
        state=ServerRequestState(row["state"]),
        problem=row["problem"],
        receipt_tries=row["receipt_tries"],
        receipt_job=row["receipt_job"],
        audio_uris=row["audio_uris"],
    )
