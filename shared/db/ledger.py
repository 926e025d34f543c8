"""The ledger of placed files, and the completion of the item that a file was for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

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
    """A file of the ledger. Its content is equal to another's if these four fields are."""

    track_id: str
    audio_uri: str
    size_bytes: int
    verified_at: datetime
    album_id: str | None = field(default=None, compare=False)
    adopted: bool = field(default=False, compare=False)
    published_at: datetime | None = field(default=None, compare=False)
    # An administrator released it: it is whole while it has this content, whatever is measured.
    released_by: str | None = field(default=None, compare=False)
    sha256: str = field(default="", compare=False)


def unreadable(error: OSError, what: str) -> DependencyDown:
    """The error for a media root that cannot be read; it is not caused by an item."""
    known = storage_error(error, what)
    if isinstance(known, AttemptFailed):
        return DependencyDown("media", known.message)
    assert isinstance(known, DependencyDown)
    return known


_FIND = """
SELECT track_id, audio_uri, size_bytes, verified_at, album_id, adopted, published_at, released_by,
       sha256
  FROM media_files WHERE track_id = ANY($1)
"""


async def placed(connection: Connection, track_ids: Sequence[str]) -> dict[str, Placed]:
    """The ledger's rows for these tracks, by track id."""
    rows = await connection.fetch(_FIND, list(track_ids))
    return {row["track_id"]: Placed(**dict(row)) for row in rows}


# A file at another path is not the one that the catalog was seen to name. The two last parameters
# are the row as it was read: with $13 it has to be that one, or to be missing.
_UPSERT = """
INSERT INTO media_files AS f (track_id, album_id, audio_uri, adopted, ext, size_bytes, sha256,
                              duration_ms, codec, bitrate_kbps, item_id, released_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $15)
ON CONFLICT (track_id) DO UPDATE
   SET album_id = coalesce(excluded.album_id, f.album_id), audio_uri = excluded.audio_uri,
       adopted = excluded.adopted, ext = excluded.ext, size_bytes = excluded.size_bytes,
       sha256 = excluded.sha256, duration_ms = excluded.duration_ms, codec = excluded.codec,
       bitrate_kbps = excluded.bitrate_kbps, verified_at = now(), item_id = excluded.item_id,
       released_by = coalesce(excluded.released_by,
                              CASE WHEN f.sha256 = excluded.sha256 THEN f.released_by END),
       published_at = CASE WHEN f.audio_uri = excluded.audio_uri THEN f.published_at END,
       playable_at = CASE WHEN f.audio_uri = excluded.audio_uri THEN f.playable_at END,
       not_playable = CASE WHEN f.audio_uri = excluded.audio_uri THEN f.not_playable END
 WHERE NOT $12 OR (f.audio_uri, f.verified_at) = ($13, $14)
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
    uri: str | None = None,
    released_by: str | None = None,
) -> bool:
    """Record the file, complete its item and write `audio.ready`, all or nothing.

    Call it in a transaction, when the file is in place: at `uri`, by default at the path of our
    rule. `released_by`: the administrator who released it. False: the item has moved meanwhile.
    """
    item = item_id if fence is None else Claim(item_id=item_id, fence=fence)
    rows = await moves.complete(connection, {item: facts.size_bytes}, reason=reason, actor=actor)
    if not rows:
        return False
    (row,) = rows
    reached("ledger.completed")
    await connection.execute(_BROUGHT, item_id)
    file = File(
        track_id=row["track_id"],
        album_id=row["album_id"],
        uri=uri or audio_uri(row["track_id"], facts.ext),
        facts=facts,
    )
    await _upsert(connection, file, item_id=item_id, released_by=released_by)
    reached("ledger.recorded")
    await announce_ready(connection, file, item_id=item_id, actor=actor)
    reached("ledger.ready")
    await settle_albums(connection, [item_id], actor=actor)
    return True


@dataclass(frozen=True, kw_only=True)
class File:
    """A whole file of a track, at `uri`."""

    track_id: str
    album_id: str | None
    uri: str
    facts: AudioFacts

    @property
    def adopted(self) -> bool:
        """Whether it has another path than our rule's, so that another program placed it."""
        return self.uri != audio_uri(self.track_id, self.facts.ext)


async def record_adopted(connection: Connection, file: File, *, known: Placed | None) -> bool:
    """Write a file without an item into the ledger, in place of the row `known`.

    False: the ledger has another row by now.
    """
    uri, verified_at = (known.audio_uri, known.verified_at) if known else (None, None)
    done = await _upsert(connection, file, item_id=None, guard=(True, uri, verified_at))
    return done != "INSERT 0 0"


async def _upsert(
    connection: Connection,
    file: File,
    *,
    item_id: str | None,
    guard: tuple[bool, str | None, datetime | None] = (False, None, None),
    released_by: str | None = None,
) -> str:
    facts = file.facts
    return await connection.execute(
        _UPSERT,
        file.track_id,
        file.album_id,
        file.uri,
        file.adopted,
        facts.ext,
        facts.size_bytes,
        facts.sha256,
        facts.duration_ms,
        facts.codec,
        facts.bitrate_kbps,
        item_id,
        *guard,
        released_by,
    )


async def announce_ready(
    connection: Connection, file: File, *, item_id: str | None, actor: str
) -> None:
    """Write the file's `audio.ready` into the outbox, for the item's requesters."""
    requesters = await connection.fetch(_REQUESTERS, item_id)
    users = {row["user_id"]: None for row in requesters if row["user_id"] is not None}
    facts = file.facts
    ready = AudioReady(
        item_id=item_id,
        track_id=file.track_id,
        album_id=file.album_id,
        audio_uri=file.uri,
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
