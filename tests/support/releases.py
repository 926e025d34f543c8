"""Albums whose tracks differ, in a world's catalog, and the torrents that may hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.world import World, album_id

ARTIST = "The Testers"
# The tracks' lengths differ by three times this.
TOLERANCE_S = 0.5
GROUPED = {"TICKET_GROUPING": "auto", "DURATION_TOLERANCE_S": str(TOLERANCE_S)}


def length_s(place: int) -> float:
    """The length of the track at this place of a release, counted from 1."""
    return 3.0 + 3 * TOLERANCE_S * place


def sees_downloads(world: World) -> dict[str, str]:
    """The settings of an installation that sees the torrents' own folder."""
    return GROUPED | {"TORRENTINO_DOWNLOADS_ROOT": str(world.downloads)}


@dataclass(frozen=True, kw_only=True)
class Release:
    """An album of the catalog, and the audio of each of its tracks."""

    id: str
    number: int
    # Of its torrent, and of the folder in it.
    title: str
    tracks: Mapping[str, Path]

    @property
    def ids(self) -> list[str]:
        """Its tracks' ids, in its order."""
        return list(self.tracks)

    def name(self, place: int) -> str:
        """What the track at this place is called, which none of another release is."""
        return _name(self.number, place)

    def path(self, place: int) -> str:
        """Where the track at this place is in the torrent."""
        return f"{self.title}/{place:02d} - {self.name(place)}.flac"

    def files(self, places: Sequence[int] | None = None) -> dict[str, Path]:
        """What a torrent of it holds: by path in it, all tracks or those at these places."""
        wanted = range(1, len(self.tracks) + 1) if places is None else places
        paths = list(self.tracks.values())
        return {self.path(n): paths[n - 1] for n in wanted}


def make_release(world: World, count: int, number: int = 1) -> Release:
    """An album in the catalog that no peer offers yet; each track has its own length and tone."""
    tracks = [{"name": _name(number, n), "seconds": length_s(n)} for n in range(1, count + 1)]
    ids = world.add_album(number, tracks=tracks, artist=ARTIST, songs=False)
    return Release(
        id=album_id(number),
        number=number,
        title=f"{ARTIST} - Album {number} [FLAC]",
        tracks={id_: world.audio[id_] for id_ in ids},
    )


def _name(number: int, place: int) -> str:
    return f"Song {100 * number + place}"


def sha256(path: Path) -> str:
    """Of a whole file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
