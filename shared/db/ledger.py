"""The ledger of placed files, and the completion of the item that a file was for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shared.crashpoints import reached
from shared.db import moves
from shared.db.album_requests import settle_albums
from shared.db.claims import Claim
from shared.db.events import record_events
from shared.db.pool import Connection
from shared.errors import AttemptFailed, DependencyDown
from shared.events import AudioReady
from shared.media.paths import audio_uri
from shared.media.place import storage_error
from shared.media.verify import AudioFacts


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A file of the ledger."""

    track_id: str
    audio_uri: str
    size_bytes: int
    verified_at: datetime

    def is_there(self, media_path: Path) -> bool:
        """Whether the file is at its place, with the size that it had. Blocks.

        Raises:
            DependencyDown: the disk cannot be read.
        """
        try:
            return (media_path / self.audio_uri).stat().st_size == self.size_bytes
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unreadable(error, f"looking at {self.audio_uri}") from error


def unreadable(error: OSError, what: str) -> DependencyDown:
    """The error for a media root that cannot be read; it is not caused by an item."""
    known = storage_error(error, what)
    if isinstance(known, AttemptFailed):
        return DependencyDown("media", known.message)
    assert isinstance(known, DependencyDown)
    return known


_FIND = """
SELECT track_id, audio_uri, size_bytes, verified_at FROM media_files WHERE track_id = ANY($1)
"""


async def placed(connection: Connection, track_ids: Sequence[str]) -> dict[str, Placed]:
    """The ledger's rows for these tracks, by track id."""
    rows = await connection.fetch(_FIND, list(track_ids))
    return {
        row["track_id"]: Placed(
            track_id=row["track_id"],
            audio_uri=row["audio_uri"],
            size_bytes=row["size_bytes"],
            verified_at=row["verified_at"],
        )
        for row in rows
    }


_UPSERT = """
INSERT INTO media_files (track_id, audio_uri, ext, size_bytes, sha256, duration_ms, codec,
                         bitrate_kbps, item_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (track_id) DO UPDATE
   SET audio_uri = excluded.audio_uri, ext = excluded.ext, size_bytes = excluded.size_bytes,
       sha256 = excluded.sha256, duration_ms = excluded.duration_ms, codec = excluded.codec,
       bitrate_kbps = excluded.bitrate_kbps, verified_at = now(), item_id = excluded.item_id
"""

# Stored with the download, which is kept longer than its items: a torrent with a placed file seeds
# on.
_BROUGHT = """
UPDATE tickets t SET brought = true
  FROM queue_items q
 WHERE q.id = $1 AND t.id = q.ticket_id AND t.way = 'direct' AND NOT t.brought
"""

_REQUESTERS = """
SELECT request_id, user_id FROM item_requesters
 WHERE item_id = $1 AND withdrawn_at IS NULL ORDER BY requested_at, request_id
"""


async def complete(
    connection: Connection,
    item_id: str,
    facts: AudioFacts,
    *,
    fence: int | None,
    reason: str,
    actor: str,
) -> bool:
    """Record the placed file, complete its item and write `audio.ready`, all or nothing.

    Call it in a transaction, when the file is in place. False: the item has moved meanwhile.
    """
    item = item_id if fence is None else Claim(item_id=item_id, fence=fence)
    rows = await moves.complete(connection, {item: facts.size_bytes}, reason=reason, actor=actor)
    if not rows:
        return False
    (row,) = rows
    reached("ledger.completed")
    await connection.execute(_BROUGHT, item_id)
    await record_file(
        connection, row["track_id"], row["album_id"], facts, item_id=item_id, actor=actor
    )
    reached("ledger.ready")
    await settle_albums(connection, [item_id], actor=actor)
    return True


async def record_file(
    connection: Connection,
    track_id: str,
    album_id: str | None,
    facts: AudioFacts,
    *,
    item_id: str,
    actor: str,
) -> None:
    """Write a file into the ledger and its `audio.ready` into the outbox."""
    uri = audio_uri(track_id, facts.ext)
    await connection.execute(
        _UPSERT,
        track_id,
        uri,
        facts.ext,
        facts.size_bytes,
        facts.sha256,
        facts.duration_ms,
        facts.codec,
        facts.bitrate_kbps,
        item_id,
    )
    reached("ledger.recorded")
    requesters = await connection.fetch(_REQUESTERS, item_id)
    users = {row["user_id"]: None for row in requesters if row["user_id"] is not None}
    ready = AudioReady(
        item_id=item_id,
        track_id=track_id,
        album_id=album_id,
        audio_uri=uri,
        ext=facts.ext,
        codec=facts.codec,
        duration_ms=facts.duration_ms,
        bitrate_kbps=facts.bitrate_kbps,
        size_bytes=facts.size_bytes,
        sha256=facts.sha256,
        request_ids=tuple(row["request_id"] for row in requesters),
        user_ids=tuple(users),
    )
    await record_events(connection, [ready], actor=actor)
