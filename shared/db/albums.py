"""The track lists of albums, as in the catalog at the last request."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

from shared.catalog.models import Album, Track
from shared.db.pool import Connection
from shared.db.track_columns import clipped
from shared.tracks import CatalogTrack


@dataclass(frozen=True, kw_only=True)
class KnownAlbum:
    """An album with all of its tracks, by disc and number."""

    name: str
    artist: str | None
    tracks: tuple[CatalogTrack, ...]
    year: int | None = None
    # As `Album.kind`.
    kind: str | None = None


# More than any release has; a request may have any number.
_MOST_TRACKS = 1000

# Only a difference is written, because an album is requested often. A message may have a part of
# the tracks, which does not replace the whole list.
_REMEMBER = """
INSERT INTO albums AS a (album_id, name, artist, tracks, year, kind)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (album_id) DO UPDATE
   SET name = excluded.name, artist = excluded.artist, tracks = excluded.tracks,
       year = coalesce(excluded.year, a.year), kind = coalesce(excluded.kind, a.kind),
       seen_at = now()
 WHERE (a.name, a.artist, a.tracks, a.year, a.kind) IS DISTINCT FROM
       (excluded.name, excluded.artist, excluded.tracks, coalesce(excluded.year, a.year),
        coalesce(excluded.kind, a.kind))
   AND jsonb_array_length(excluded.tracks) >= jsonb_array_length(a.tracks)
"""

_KNOWN = "SELECT album_id, name, artist, tracks, year, kind FROM albums WHERE album_id = ANY($1)"


async def remember_albums(connection: Connection, albums: Iterable[Album]) -> None:
    """Store the track lists, in the order of their ids, so that two transactions do not block."""
    for album in sorted(albums, key=lambda each: each.id):
        await connection.execute(
            _REMEMBER,
            album.id,
            clipped(album.name),
            clipped(album.artist),
            [_track(each) for each in album.tracks[:_MOST_TRACKS]],
            album.year,
            clipped(album.kind),
        )


def _track(track: Track) -> dict[str, object]:
    return asdict(
        CatalogTrack(
            id=track.id,
            title=clipped(track.name),
            artist=clipped(track.artists[0]) if track.artists else None,
            disc=track.disc_number,
            number=track.track_number,
            duration_ms=track.duration_ms,
        )
    )


async def known_albums(connection: Connection, album_ids: Collection[str]) -> dict[str, KnownAlbum]:
    """Those of these albums whose track list is stored, by id."""
    rows = await connection.fetch(_KNOWN, list(album_ids)) if album_ids else []
    return {
        row["album_id"]: KnownAlbum(
            name=row["name"],
            artist=row["artist"],
            tracks=tuple(CatalogTrack(**each) for each in row["tracks"]),
            year=row["year"],
            kind=row["kind"],
        )
        for row in rows
    }
