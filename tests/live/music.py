"""What a trial is about: a catalog's albums, and the releases that the indexer lists."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from services.local.sample import add_album, create_catalog
from tests.live.sound import Kind, Sounds, Tone, place

_FIRST_HZ = 220
_STEP_HZ = 7
_SHORTEST_S = 3.0
# Far more than DURATION_TOLERANCE_S of the trials: a length tells a track within its album.
_LONGER_S = 0.7

_NAMES = (
    *("Gulls at Noon", "Rope and Tar", "Fog Signal", "The Last Boat In", "Low Tide"),
    *("Paper Sails", "Salt on the Strings", "A Light on the Mole", "Anchor Song", "High Tide"),
    *("Copper Wire", "Nine Doors", "The Long Field", "Winter Keys", "Small Machines"),
)


@dataclass(frozen=True, kw_only=True)
class Track:
    """A track of the catalog, and the one recording that may be placed for it."""

    id: str
    name: str
    disc: int
    number: int
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class Album:
    """An album of the catalog."""

    id: str
    name: str
    artist: str
    year: int
    tracks: tuple[Track, ...]


@dataclass(frozen=True, kw_only=True)
class Audio:
    """A file of one recording, or of several, one behind the other."""

    tones: tuple[Tone, ...]
    kind: Kind = "flac"


File: TypeAlias = Audio | str


@dataclass(frozen=True, kw_only=True)
class Release:
    """A torrent, and what the indexer says of it."""

    title: str
    # Its name on disk: the folder, or the file if there is only one and `folder` is None.
    folder: str | None
    files: Mapping[str, File]
    seeders: int = 12
    seeded: bool = True
    private: bool = False
    magnet_only: bool = False
    listed: bool = True
    rate_kib_s: int = 0


@dataclass
class Music:
    """The albums and releases of one trial; no two recordings are of one tone."""

    albums: list[Album] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    _next: Iterator[int] = field(default_factory=lambda: iter(range(_FIRST_HZ, 3_000, _STEP_HZ)))

    def album(
        self,
        artist: str,
        name: str,
        year: int,
        tracks: int | Sequence[str],
        *,
        discs: int = 1,
        shortest_s: float = _SHORTEST_S,
    ) -> Album:
        """An album in the catalog, with that many tracks on each disc, or tracks of these names."""
        number = len(self.albums) + 1
        names = [
            f"{title} {number}" if isinstance(tracks, int) else title
            for title in (_NAMES[: tracks * discs] if isinstance(tracks, int) else tracks)
        ]
        on_a_disc = len(names) // discs
        made = Album(
            id=f"A{number:021d}",
            name=name,
            artist=artist,
            year=year,
            tracks=tuple(
                Track(
                    id=f"T{number * 100 + place:021d}",
                    name=title,
                    disc=place // on_a_disc + 1,
                    number=place % on_a_disc + 1,
                    tone=Tone(
                        seconds=round(shortest_s + _LONGER_S * place, 1), hz=next(self._next)
                    ),
                )
                for place, title in enumerate(names)
            ),
        )
        self.albums.append(made)
        return made

    def another(self, album: Album) -> dict[str, Tone]:
        """Other recordings of an album's tracks, of the same lengths, by their ids."""
        return {
            track.id: Tone(seconds=track.tone.seconds, hz=next(self._next))
            for track in album.tracks
        }

    def offer(self, release: Release) -> Release:
        """Have the swarm give it, and the indexer list it."""
        self.releases.append(release)
        return release

    def write_catalog(self, path: Path) -> None:
        """The catalog, as the catalog server has it. Blocks."""
        create_catalog(path)
        for album in self.albums:
            tracks = [
                {
                    "id": track.id,
                    "name": track.name,
                    "duration_ms": round(track.tone.seconds * 1000),
                    "disc_number": track.disc,
                    "track_number": track.number,
                }
                for track in album.tracks
            ]
            add_album(path, album_id=album.id, name=album.name, artist=album.artist, tracks=tracks)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(
                "UPDATE albums SET release_date = ?, release_date_precision = 'day' WHERE id = ?",
                [(f"{album.year}-05-15", album.id) for album in self.albums],
            )

    def write_releases(self, folder: Path, sounds: Sounds) -> Path:
        """Every release's files, and the list of them that the swarm reads. Blocks."""
        told = []
        for number, release in enumerate(self.releases):
            top = folder / str(number)
            if release.folder is not None:
                top /= release.folder
            for name, file in release.files.items():
                _write(top / name, file, sounds)
            [path] = [top] if release.folder is not None else top.iterdir()
            told.append(
                {
                    "title": release.title,
                    "path": str(path),
                    "seeders": release.seeders,
                    "seeded": release.seeded,
                    "private": release.private,
                    "magnet_only": release.magnet_only,
                    "listed": release.listed,
                    "rate_kib_s": release.rate_kib_s,
                }
            )
        world = folder / "world.json"
        world.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        return world


def _write(path: Path, file: File, sounds: Sounds) -> None:
    if isinstance(file, Audio):
        place(sounds.make(file.tones, file.kind), path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file, encoding="utf-8")


def files_of(
    album: Album,
    kind: Kind = "flac",
    *,
    name: str = "{number:02d} - {title}",
    tones: Mapping[str, Tone] | None = None,
) -> dict[str, File]:
    """A file for each track of an album, with the album's recordings or others."""
    return {
        f"{name.format(number=track.number, disc=track.disc, title=track.name)}.{kind}": Audio(
            tones=((tones or {}).get(track.id, track.tone),), kind=kind
        )
        for track in album.tracks
    }


def image_of(album: Album, name: str) -> dict[str, File]:
    """An album as one file with a CUE sheet."""
    lines = [f'PERFORMER "{album.artist}"', f'TITLE "{album.name}"', f'FILE "{name}.flac" WAVE']
    begins = 0.0
    for track in album.tracks:
        minutes, seconds = divmod(begins, 60)
        frames = round(seconds % 1 * 75)
        lines += [
            f"  TRACK {track.number:02d} AUDIO",
            f'    TITLE "{track.name}"',
            f"    INDEX 01 {int(minutes):02d}:{int(seconds):02d}:{frames:02d}",
        ]
        begins += track.tone.seconds
    tones = tuple(track.tone for track in album.tracks)
    return {f"{name}.flac": Audio(tones=tones), f"{name}.cue": "\n".join(lines) + "\n"}
