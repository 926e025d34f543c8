"""The requests that are followed and ended, in `bridge_requests`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from services.bridge.requests_store import COLUMNS, MOST, Taken, taken
from shared.db.pool import Database
from shared.errors import Stale
from shared.states import ACTIVE_STATUSES, ServerRequestState, Status, allowed_from, values

How = Literal["deleted", "left", "receipt"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What has become of our items of a request that is followed."""

    request: Taken
    # In the queue or under way; COMPLETED; FAILED.
    open: int
    completed: int
    failed: int
    # Of one of the failed ones.
    why: str | None
    track_ids: tuple[str, ...]


_FOLLOWED = f"""
SELECT b.{", b.".join(part.strip() for part in COLUMNS.split(","))},
       c.open, c.completed, c.failed, c.why, c.track_ids
  FROM bridge_requests b
  CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE q.status = ANY($2)) AS open,
              count(*) FILTER (WHERE q.status = $3) AS completed,
              count(*) FILTER (WHERE q.status = $4) AS failed,
              min(q.error_message) FILTER (WHERE q.status = $4) AS why,
              coalesce(array_agg(q.track_id) FILTER (WHERE q.id IS NOT NULL), '{{}}') AS track_ids
         FROM item_requesters i JOIN queue_items q ON q.id = i.item_id
        WHERE i.request_id = b.request_id AND i.withdrawn_at IS NULL) c
 WHERE b.state = $1 AND b.due_at <= now() AND c.open = 0
 ORDER BY b.due_at LIMIT {MOST}
"""  # noqa: S608 (made of constants)

_CLOSING = f"""
SELECT {COLUMNS} FROM bridge_requests
 WHERE state = ANY($1) AND due_at <= now() ORDER BY due_at LIMIT {MOST}
"""  # noqa: S608 (made of constants)

_LATER = """
UPDATE bridge_requests SET problem = $3, due_at = now() + make_interval(secs => $4)
 WHERE remote_id = $1 AND state = $2
RETURNING 1
"""

_PLAYS = f"""
UPDATE bridge_requests
   SET state = $2, plays_at = coalesce(plays_at, now()), due_at = now(), problem = $4,
       audio_uris = coalesce($5, audio_uris)
 WHERE remote_id = $1 AND state = ANY($3)
RETURNING {COLUMNS}
"""  # noqa: S608 (made of constants)

_END = """
UPDATE bridge_requests
   SET state = $2, how = $4, ended_at = now(), plays_at = coalesce(plays_at, now()), problem = $5
 WHERE remote_id = $1 AND state = ANY($3)
RETURNING extract(epoch FROM now())::bigint - requested_at AS took_s
"""

# Of two bridges that come this far, one finds it due.
_UPLOADING = """
UPDATE bridge_requests
   SET receipt_at = now(), receipt_tries = receipt_tries + 1,
       due_at = now() + make_interval(secs => $3)
 WHERE remote_id = $1 AND state = $2 AND due_at <= now()
RETURNING 1
"""

_UPLOADED = """
UPDATE bridge_requests SET receipt_job = $3, due_at = now()
 WHERE remote_id = $1 AND state = $2
RETURNING 1
"""

_SINCE_UPLOAD = """
SELECT extract(epoch FROM now() - receipt_at) FROM bridge_requests WHERE remote_id = $1
"""

_ALBUM_FILES = "SELECT track_id FROM media_files WHERE album_id = $1"

_PUBLISHED = """
SELECT count(*) = cardinality($1::text[]) FROM media_files
 WHERE track_id = ANY($1) AND published_at IS NOT NULL
"""


class EndingsStore:
    """Reads and writes the requests on their way to their end there."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def followed(self) -> list[Progress]:
        """The due requests of which no item is under way any more."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                _FOLLOWED,
                ServerRequestState.FOLLOWED,
                values(ACTIVE_STATUSES),
                Status.COMPLETED,
                Status.FAILED,
            )
        return [
            Progress(
                request=taken(row),
                open=row["open"],
                completed=row["completed"],
                failed=row["failed"],
                why=row["why"],
                track_ids=tuple(dict.fromkeys(row["track_ids"])),
            )
            for row in rows
        ]

    async def closing(self, state: ServerRequestState) -> list[Taken]:
        """The due requests that are being ended there in this way."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_CLOSING, [state.value])
        return [taken(row) for row in rows]

    async def later(self, request: Taken, problem: str | None, *, in_s: float) -> None:
        """Put a request off; its state stays."""
        async with self.database.connection() as connection:
            await connection.execute(
                _LATER, request.remote_id, request.state, problem and problem[:1000], in_s
            )

    async def close_by(
        self,
        request: Taken,
        state: ServerRequestState,
        *,
        problem: str | None = None,
        audio_uris: Mapping[str, str | None] | None = None,
    ) -> Taken:
        """Record the intent to end a request there.

        Raises:
            Stale: another bridge was faster.
        """
        async with self.database.connection() as connection:
            row = await connection.fetchrow(
                _PLAYS,
                request.remote_id,
                state,
                allowed_from(state),
                problem and problem[:1000],
                None if audio_uris is None else dict(audio_uris),
            )
        if row is None:
            raise Stale(f"{request.remote_id} is not to be ended any more")
        return taken(row)

    async def end(self, request: Taken, how: How, *, problem: str | None = None) -> int | None:
        """Record that a request is ended there; seconds since it was made, by two clocks.

        Raises:
            Stale: another bridge was faster.
        """
        ended = ServerRequestState.ENDED
        async with self.database.connection() as connection:
            row = await connection.fetchrow(
                _END, request.remote_id, ended, allowed_from(ended), how, problem
            )
        if row is None:
            raise Stale(f"{request.remote_id} is ended already")
        took: int | None = row["took_s"]
        return took

    async def uploading(self, request: Taken, *, again_in_s: float) -> None:
        """Record that a receipt is about to be uploaded.

        Raises:
            Stale: another bridge was faster.
        """
        async with self.database.connection() as connection:
            done = await connection.fetchval(
                _UPLOADING, request.remote_id, request.state, again_in_s
            )
        if done is None:
            raise Stale(f"{request.remote_id} wants no receipt any more")

    async def uploaded(self, request: Taken, job_id: str) -> None:
        """Record the job of a receipt."""
        async with self.database.connection() as connection:
            await connection.execute(_UPLOADED, request.remote_id, request.state, job_id)

    async def since_upload_s(self, request: Taken) -> float:
        """Seconds since its receipt was uploaded last; 0 where none was."""
        async with self.database.connection() as connection:
            return float(await connection.fetchval(_SINCE_UPLOAD, request.remote_id) or 0)

    async def files_of(self, album_id: str) -> list[str]:
        """The tracks of an album that have a file here."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_ALBUM_FILES, album_id)
        return [row["track_id"] for row in rows]

    async def published(self, track_ids: Sequence[str]) -> bool:
        """Whether the catalog names a file for each of these tracks, as far as we know."""
        async with self.database.connection() as connection:
            return bool(track_ids) and bool(await connection.fetchval(_PUBLISHED, list(track_ids)))
