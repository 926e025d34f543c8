"""Release lists as indexers give them, generated from a seed: right and wrong releases.

A row has the form of `bench.choosing`. All names are made up; the title formats are those of free
trackers, Gazelle, the scene, RuTracker and sites without rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


_FIRST = words(
    "Amber Copper Hollow Velvet Iron Paper Silent Northern Broken Golden Winter Distant Crooked"
    " Salt Electric Pale Burning Glass Marble Wandering"
)
_SECOND = words(
    "Lantern Harbour Orchard Signal Meadow Engine River Cathedral Mirror Compass Garden Thunder"
    " Feather Station Ladder Horizon Kettle Anchor Tunnel Willow"
)
# Misleading names: numbers, years, words with a meaning in titles, signs, other scripts.
_ODD_ALBUMS = (
    *("Long Live the River", "Covers", "1989", "4", "Up", "Alive", "The Remixer", "Demolition"),
    *("Don't Look", "S.O.S?!", "A+E", "H\u00f8st", "Quartet No. 3", "Best of 93", "Discotheque"),
    *("Me & You", "The End, The Beginning", "Mono", "Session 9", "24/7"),
)
_PEOPLE = (
    *("Ida Crane", "Marlow Quist", "Odile Verre", "Sten Holm", "Rhea Tolland", "Jonas Pike"),
    *("The Copper Kites", "Gale & Ferrow", "Kessel Union", "Halden", "Bexley Row", "Vik Strand"),
    *("K!te", "A$H KODA", "S\u00f3lveig Dahl", "deadwire9", "311 Rooms", "Live Oak", "Ode"),
)
_LOSSLESS_KBPS = 850
_MINUTES_A_TRACK = 3.9

Shape = Callable[[str, str, int, str], str]
_SHAPES: tuple[Shape, ...] = (
    lambda a, t, y, f: f"{a} - {t} ({y}) [{f}]",
    lambda a, t, y, f: f"{a} - {t} [{y}] {f}",
    lambda a, t, y, f: f"{a} {t} {y} {f}",
    lambda a, t, y, f: f"{a} - {y} - {t} [{f}]",
    lambda a, t, y, f: f"{t} - {a} ({y}) [{f}]",
    lambda a, t, y, f: f"{a} \u2013 {t} ({y}) {{{f}}} [GRPX]",
    lambda a, t, y, f: f"{a} - {t} [{y}] [Album] [{f} / WEB]",
    lambda a, t, y, f: f"(Rock) [CD] {a} - {t} - {y}, {f} (tracks+.cue)",
    lambda a, t, y, f: f"{a}-{t}-WEB-{f}-{y}-OZMO".replace(" ", "_"),
    lambda a, t, y, f: f"[site.example] {a} - {t} ({y}) {f}",
    lambda a, t, y, f: f"{a} - {t} ({y}) [EAC-{f}] [Log 100%]",
    lambda a, t, y, f: f"{a.upper()} - {t.lower()} {y} {f} vexatious88",
)


def lists(count: int, seed: int) -> Iterator[Row]:
    """`count` rows, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield _list(rng)


def _list(rng: random.Random) -> Row:
    artist, album = rng.choice(_PEOPLE), f"{rng.choice(_FIRST)} {rng.choice(_SECOND)}"
    volume = rng.choice(["", "", "", " II", ", Vol. 3", " 2"])
    if rng.random() < 0.3:
        album, volume = rng.choice([*_ODD_ALBUMS, artist]), ""
    year, tracks = rng.randint(1975, 2022), rng.randint(8, 16)
    seconds = tracks * _MINUTES_A_TRACK * 60 * rng.uniform(0.85, 1.15)
    made = _Maker(rng, artist, album, volume, year, tracks, seconds)
    good = [made.right("FLAC")] + [made.right("MP3 320") for _ in range(rng.randint(0, 2))]
    if rng.random() < 0.15:
        good = good[1:]
    bad = [make() for make in rng.sample(made.wrongs(), k=rng.randint(2, 6))]
    candidates = [*good, *bad]
    rng.shuffle(candidates)
    places = {id(each): place for place, each in enumerate(candidates)}
    lossless = [places[id(each)] for each in good if "FLAC" in each["title"].upper()]
    return {
        "wanted": {
            "artist": artist,
            "album": album + volume,
            "year": year,
            "type": "album",
            "tracks": tracks,
            "minutes": seconds / 60,
        },
        "candidates": candidates,
        "right": lossless or [places[id(each)] for each in good],
        "never": [places[id(each)] for each in bad],
    }


@dataclass(frozen=True)
class _Maker:
    """Makes the entries of one list."""

    _rng: random.Random
    _artist: str
    _album: str
    _volume: str
    _year: int
    _tracks: int
    _seconds: float

    def right(self, format_: str) -> Row:
        """The album itself, whole."""
        files = self._tracks if self._rng.random() < 0.6 else None
        title = self._album + self._volume
        return self._entry(self._artist, title, self._year, format_, files=files)

    def wrongs(self) -> list[Callable[[], Row]]:
        """A maker for each kind of wrong release."""
        title = self._album + self._volume
        live = self._rng.choice(["(Live)", "Live at the Foundry", "Tour", "(Demos)", "(Remixes)"])
        live = self._rng.choice([live, "(Instrumental)", "(Karaoke Version)", "Acoustic"])
        other = next(name for name in _PEOPLE if name != self._artist)
        return [
            lambda: self._entry(self._artist, f"{title} {live}", self._year + 2, "FLAC"),
            lambda: self._entry(self._artist, title, self._year, "FLAC", part=0.1),
            lambda: self._entry(
                self._artist, self._album + " 7", self._year + self._rng.randint(3, 6), "FLAC"
            ),
            lambda: self._entry(other, title, self._year, "FLAC"),
            lambda: self._entry(
                "VA", f"A Tribute to {self._artist}: {title}", self._year + 9, "FLAC"
            ),
            lambda: self._entry(self._artist, f"{title} (Single)", self._year, "FLAC", part=0.09),
            lambda: self._entry(self._artist, f"{title} (CD1)", self._year, "FLAC", part=0.5),
            lambda: self._entry(
                self._artist,
                f"{self._rng.choice(_FIRST)} Nowhere",
                self._year + self._rng.randint(-4, 4),
                "FLAC",
            ),
            lambda: self._entry(self._artist, f"The {self._album} Years", self._year, "FLAC"),
            lambda: self._entry(self._artist, title, self._year, "MP3 96kbps"),
            lambda: self._entry(self._artist, title, self._year, "BDRip 1080p x264", part=9),
            lambda: {
                "title": f"{self._artist} - Discography"
                f" {self._year + 1}-{self._year + 12} (6 albums) [FLAC]",
                "size_mb": 2100,
                "seeders": self._rng.randint(1, 300),
            },
        ]

    def _entry(
        self,
        artist: str,
        title: str,
        year: int,
        format_: str,
        *,
        part: float = 1.0,
        files: int | None = None,
    ) -> Row:
        rate = 320 if "320" in format_ else 96 if "96" in format_ else _LOSSLESS_KBPS
        size = self._seconds * rate * 1000 / 8 * part * self._rng.uniform(0.92, 1.08)
        shape = self._rng.choice(_SHAPES)
        row = {
            "title": shape(artist, title, year, format_),
            "size_mb": size / 1e6,
            "seeders": self._rng.choice([1, 2, 5, 12, 40, 300]),
        }
        return row if files is None else {**row, "files": files}
