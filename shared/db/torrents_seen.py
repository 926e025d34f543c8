"""Which torrents were at Torrentino's client when, so that what was there before us is not ours."""

from __future__ import annotations

from collections.abc import Collection

from shared.db.pool import Connection
from shared.states import DownloadState

# One list serves the tickets that are asked for after it. A torrent keeps the time at which it was
# seen first.
_SEE = """
INSERT INTO torrents_seen (info_hash) SELECT DISTINCT lower(h) FROM unnest($1::text[]) AS h
ON CONFLICT DO NOTHING
"""
_LISTED = f"""
UPDATE tickets SET listed_at = now() WHERE id = ANY($1) AND state = '{DownloadState.INTENT}'
"""  # noqa: S608 (made of constants)

_FORGET = "DELETE FROM torrents_seen WHERE info_hash = lower($1)"

# Adds exclude removals, and not each other.
_KEY = "hashtext('pezzottify.torrents.removal')"
_LOCK_FOR_ADD = f"SELECT pg_try_advisory_xact_lock_shared({_KEY})"
_LOCK_FOR_REMOVAL = f"SELECT pg_try_advisory_xact_lock({_KEY})"

# An add of a torrent whose hash the indexer does not tell may be at work on any.
_ADDS_UNKNOWN = f"""
SELECT EXISTS (SELECT 1 FROM tickets
                WHERE way = 'direct' AND state = '{DownloadState.INTENT}'
                  AND adding_at IS NOT NULL AND info_hash IS NULL)
"""  # noqa: S608 (made of constants)


async def note_torrents(
    connection: Connection, info_hashes: Collection[str], *, before: Collection[str]
) -> None:
    """The client has these torrents, `before` any of these tickets is asked for."""
    await connection.execute(_SEE, sorted(info_hashes))
    await connection.execute(_LISTED, list(before))


async def forget_torrent(connection: Connection, info_hash: str) -> None:
    """It is removed: when it comes again, it is the download's that brings it."""
    await connection.execute(_FORGET, info_hash)


async def lock_for_add(connection: Connection) -> bool:
    """Keep torrents from being removed until the end of the transaction; False: one is just now.

    What the transaction records as added, a later removal sees.
    """
    return bool(await connection.fetchval(_LOCK_FOR_ADD))


async def lock_for_removal(connection: Connection) -> bool:
    """Keep downloads from adding torrents until the end of the transaction; False: one does."""
    return bool(await connection.fetchval(_LOCK_FOR_REMOVAL)) and not await connection.fetchval(
        _ADDS_UNKNOWN
    )
