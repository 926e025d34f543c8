"""What items want together, and which queries serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.choosing.model import Wanted
from shared.choosing.queries import artist_wide, for_album
from shared.db.albums import KnownAlbum
from shared.db.claims import Claim
from shared.db.pool import Row
from shared.db.releases import memory_of
from shared.tracks import CatalogTrack, WantedTrack

# Of an album whose tracklist is not known.
_USUAL_TRACKS = 10
# Of one search for an album, those for its artist, and one for a track alone.
_MOST_QUERIES = 3


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item that a ticketer holds, with its track."""

    claim: Claim
    wanted: WantedTrack

    @property
    def track(self) -> CatalogTrack:
        """As the catalog describes it."""
        return self.wanted.track


def item_of(row: Row) -> Item:
    """The item of a row of `queue_items`; `fence` may be missing where it is not claimed yet."""
    return Item(
        claim=Claim(item_id=row["id"], fence=row.get("fence") or 0),
        wanted=WantedTrack(
            item_id=row["id"],
            track=CatalogTrack(
                id=row["track_id"],
                title=row["track_name"],
                artist=row["main_artist"] or row["artist_name"],
                disc=row["disc_number"],
                number=row["track_number"],
                duration_ms=row["duration_ms"],
            ),
            album_id=row["album_id"],
            album=row["album_name"],
            album_artist=row["album_artist"],
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Want:
    """An album of which tracks are wanted, or a track without one."""

    # None: of no album.
    album: Wanted | None
    # The track alone, where only one is wanted.
    track: Wanted | None
    # What indexers are asked, each only if the ones before gave nothing suitable.
    queries: tuple[str, ...]
    # Those of them that serve all albums of the artist.
    artist_wide: frozenset[str]
    memory: str
    artist: str


def want_of(items: Sequence[Item], known: KnownAlbum | None) -> Want:
    """What these items, of one album or one alone, want; `known` is their album's tracklist."""
    first = items[0].wanted
    album = _album(items, known) if first.album_id and first.album else None
    track = _track(items[0].track) if len(items) == 1 else None
    artist = album.artist if album else first.track.artist or ""
    # A single is asked for its album first, then for itself.
    asked = for_album(album) if album else []
    own = for_album(track)[:1] if track else []
    queries = [*asked[: _MOST_QUERIES - len(own)], *own]
    return Want(
        album=album,
        track=track,
        queries=tuple(dict.fromkeys(queries)),
        artist_wide=frozenset(artist_wide(album)) if album else frozenset(),
        memory=memory_of(album_id=first.album_id if album else None, track_id=first.track.id),
        artist=artist,
    )


def _album(items: Sequence[Item], known: KnownAlbum | None) -> Wanted:
    first = items[0].wanted
    artist = first.album_artist or first.track.artist or ""
    if known is None:
        return Wanted(
            artist=artist,
            album=first.album or "",
            year=None,
            tracks=max(_USUAL_TRACKS, len(items)),
            seconds=0.0,
        )
    lengths = [each.duration_ms / 1000 for each in known.tracks if each.duration_ms]
    seconds = sum(lengths) / len(lengths) * len(known.tracks) if lengths else 0.0
    return Wanted(
        artist=known.artist or artist,
        album=known.name,
        year=known.year,
        tracks=len(known.tracks),
        seconds=seconds,
        kind="single" if known.kind == "single" else "album",
    )


def _track(track: CatalogTrack) -> Wanted:
    return Wanted(
        artist=track.artist or "",
        album=track.title,
        year=None,
        tracks=1,
        seconds=(track.duration_ms or 0) / 1000,
        kind="single",
    )
