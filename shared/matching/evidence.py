"""The evidence for and against each pair of a track and a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

from shared.lengths import tolerance_of
from shared.matching.folders import Folder, read_folders
from shared.matching.model import Offered
from shared.matching.names import Named, Reading, read_names
from shared.matching.titles import Likeness, Title, fold, likeness, score, title_of
from shared.matching.vocabulary import OF_ITS_TAPE, marks_in
from shared.media.extensions import LOSSLESS, extension_of
from shared.tracks import CatalogTrack

# Points for a pair. The same title outweighs all the rest together; a number counts more than
# Torrentino's mapping, or than a length that fits a little better.
_TITLE = {
    Likeness.SAME: 240,
    Likeness.NEAR: 70,
    Likeness.SIMILAR: 20,
    Likeness.UNKNOWN: 0,
    Likeness.OTHER_RECORDING: -90,
    Likeness.OTHER_TITLE: -70,
}
_LENGTH = 30
_MAPPED = 8


class Position(IntEnum):
    """How disc and number of a file compare with those of a track."""

    CONTRARY = 0
    UNKNOWN = 1
    # The number is right, but the album has several discs and the file's disc is unknown.
    NUMBER = 2
    MATCH = 3


_POSITION = {
    Position.MATCH: 40,
    Position.NUMBER: 10,
    Position.UNKNOWN: 0,
    Position.CONTRARY: -30,
}


@dataclass(frozen=True, kw_only=True)
class File:
    """An offered file, with what its path and tags say."""

    offered: Offered
    readings: tuple[Reading, ...]
    disc: int | None
    number: int | None
    folder: Folder
    # The marks that the folders, the tags and all readings of the name have.
    marks: frozenset[str]

    @property
    def name(self) -> str:
        return self.offered.name

    @property
    def measured(self) -> bool:
        return self.offered.duration_s is not None

    @property
    def lossless(self) -> bool:
        return extension_of(self.offered.file_name) in LOSSLESS


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A track compared with a file. `off_s`: the difference of their lengths; None: one is unknown.

    `tolerance_s`: up to which difference they agree.
    """

    track: CatalogTrack
    file: File
    likeness: Likeness
    title_score: int
    position: Position
    off_s: float | None
    tolerance_s: float

    @property
    def permitted(self) -> bool:
        """Whether the lengths, if both are known, agree."""
        return self.off_s is None or self.off_s <= self.tolerance_s

    @property
    def fits(self) -> bool:
        """Whether both lengths are known and agree."""
        return self.off_s is not None and self.off_s <= self.tolerance_s

    @property
    def points(self) -> int:
        exact = 0.0 if self.off_s is None else 1 - min(1.0, self.off_s / (self.tolerance_s or 1))
        mapped = self.file.offered.mapped.get(self.track.number or 0, 0.0)
        return (
            _TITLE[self.likeness]
            + _POSITION[self.position]
            + round(_LENGTH * exact)
            + round(_MAPPED * min(1.0, max(0.0, mapped)))
        )


class Album:
    """The tracks in their order, each compared with each file of a torrent."""

    def __init__(
        self,
        tracks: Sequence[CatalogTrack],
        offered: Sequence[Offered],
        *,
        tolerance_s: float,
        name: str | None = None,
    ) -> None:
        self.tolerance_s = tolerance_s
        self.tracks = sorted(tracks, key=_place)
        self.titles = {track.id: title_of(track.title) for track in self.tracks}
        self.implied = marks_in(fold(name)) if name else frozenset()
        self.files = files_of(self.tracks, offered, album=name)
        self.by_name = {file.name: file for file in self.files}
        self._discs = max((track.disc or 1 for track in self.tracks), default=1)

    @cached_property
    def pairs(self) -> Mapping[tuple[str, str], Pair]:
        """Every pair, by track id and file name."""
        return {
            (track.id, file.name): self._compared(track, file)
            for track in self.tracks
            for file in self.files
        }

    def foreign(self, pair: Pair) -> frozenset[str]:
        """The marks of the file that neither the track nor the album has: of another recording."""
        return pair.file.marks - self.titles[pair.track.id].marks - self.implied

    def coverage(self, file: File) -> int:
        """How many of the tracks the folder of this file seems to have."""
        return self._coverage[file.folder.key]

    @cached_property
    def _coverage(self) -> Mapping[tuple[str, ...], int]:
        found: dict[tuple[str, ...], set[str]] = {file.folder.key: set() for file in self.files}
        for (track_id, name), pair in self.pairs.items():
            if pair.permitted and pair.likeness >= Likeness.NEAR:
                found[self.by_name[name].folder.key].add(track_id)
        return {key: len(tracks) for key, tracks in found.items()}

    @property
    def single(self) -> bool:
        """Whether there is one track and one file."""
        return len(self.tracks) == len(self.files) == 1

    @cached_property
    def _usual(self) -> frozenset[str]:
        """The marks that all tracks have: on a live album "(Live)" does not tell tracks apart.

        A torrent of the same songs without voices has the same lengths, so it has to say so.
        """
        if len(self.tracks) < 3:
            return frozenset()
        of_all = frozenset.intersection(*(title.marks for title in self.titles.values()))
        return of_all - OF_ITS_TAPE

    @cached_property
    def _alike(self) -> Mapping[tuple[str, str], tuple[Likeness, int]]:
        """The likeness of the titles of each pair.

        Where the torrent has titles in the catalog's script, which is not Latin, a title in another
        script is another title, not a transliteration.
        """
        alike = {
            (track.id, file.name): self._likeness(self.titles[track.id], file)
            for track in self.tracks
            for file in self.files
        }
        keeps_scripts = any(
            found >= Likeness.NEAR and "LATIN" not in self.titles[track_id].scripts
            for (track_id, _), (found, _) in alike.items()
        )
        titled = {file.name for file in self.files if file.readings and keeps_scripts}
        return {
            key: (Likeness.OTHER_TITLE, points)
            if found is Likeness.UNKNOWN and key[1] in titled
            else (found, points)
            for key, (found, points) in alike.items()
        }

    @cached_property
    def _running(self) -> Mapping[str, int] | None:
        """The running number of each track, if the files are numbered over all discs."""
        possible = {
            name for (_, name), (found, _) in self._alike.items() if found >= Likeness.UNKNOWN
        }
        return _running_numbers(self.tracks, [file for file in self.files if file.name in possible])

    def _compared(self, track: CatalogTrack, file: File) -> Pair:
        alike, points = self._alike[track.id, file.name]
        return Pair(
            track=track,
            file=file,
            likeness=alike,
            title_score=points,
            position=self._position(track, file),
            off_s=_off_s(track, file),
            tolerance_s=tolerance_of(track.duration_ms, self.tolerance_s),
        )

    def _likeness(self, title: Title, file: File) -> tuple[Likeness, int]:
        """The best likeness of all readings of the file's names; UNKNOWN without a reading.

        A piece of a name may raise the likeness, but does not turn another title into UNKNOWN.
        """
        best: tuple[Likeness, int] | None = None
        if not file.readings and file.marks - title.marks - self.implied:
            return Likeness.OTHER_RECORDING, 0
        for reading in file.readings:
            alike = likeness(
                title,
                reading.title,
                usual=self._usual,
                implied=self.implied,
                beside=file.marks,
            )
            if reading.at_most < Likeness.SAME and alike <= Likeness.UNKNOWN:
                continue
            found = (min(alike, reading.at_most), score(title, reading.title))
            best = found if best is None else max(best, found)
        return best or (Likeness.UNKNOWN, 0)

    def _position(self, track: CatalogTrack, file: File) -> Position:
        if file.number is None or track.number is None:
            other = file.disc is not None and self._discs > 1 and file.disc != (track.disc or 1)
            return Position.CONTRARY if other else Position.UNKNOWN
        if self._running is not None:
            right = self._running[track.id] == file.number
            return Position.MATCH if right else Position.CONTRARY
        if file.number != track.number:
            return Position.CONTRARY
        if file.disc is None:
            return Position.MATCH if self._discs == 1 else Position.NUMBER
        return Position.MATCH if file.disc == (track.disc or 1) else Position.CONTRARY


def _place(track: CatalogTrack) -> tuple[int, int, str]:
    return track.disc or 1, track.number or 0, track.id


def files_of(
    tracks: Sequence[CatalogTrack], offered: Sequence[Offered], *, album: str | None
) -> list[File]:
    """The files of a torrent in the order of their names, with what paths and tags say."""
    ordered = sorted(offered, key=lambda one: one.name)
    artists = {track.artist for track in tracks if track.artist}
    paths = [one.name for one in ordered]
    named = _without_foreign_disc(tracks, read_names(paths, artists))
    folders = read_folders(paths, album=album, artists=artists)
    return [
        _file(one, says, folder) for one, says, folder in zip(ordered, named, folders, strict=True)
    ]


def _without_foreign_disc(
    tracks: Sequence[CatalogTrack], named: Sequence[Named]
) -> Sequence[Named]:
    """The names without a disc that all have, and the album has not: it numbers albums ("LP3")."""
    discs = {says.disc for says in named if says.disc is not None}
    if len(discs) != 1 or discs <= {track.disc or 1 for track in tracks}:
        return named
    return [replace(says, disc=None) for says in named]


def _file(offered: Offered, says: Named, folder: Folder) -> File:
    """Tags and names together; where their numbers differ, neither counts.

    A recording that one of them names counts: a name or a tag without a mark says nothing of it.
    """
    readings = says.readings
    marks = folder.marks | _marks_of(readings)
    if offered.title and (title := title_of(offered.title)).core:
        readings = (Reading(title=title), *readings)
        marks |= title.marks
    disc, number = says.disc, says.number
    if offered.number is not None:
        number = offered.number if number in {None, offered.number} else None
    if offered.disc is not None:
        disc = offered.disc if disc in {None, offered.disc} else None
    return File(
        offered=offered, readings=readings, disc=disc, number=number, folder=folder, marks=marks
    )


def _marks_of(readings: Sequence[Reading]) -> frozenset[str]:
    """The marks of a name: those that all of its readings have."""
    marks = [reading.title.marks for reading in readings]
    return frozenset.intersection(*marks) if marks else frozenset()


def _running_numbers(
    tracks: Sequence[CatalogTrack], files: Sequence[File]
) -> Mapping[str, int] | None:
    """Each track's number over all discs, if the files are numbered so; else None.

    They are if the numbers reach the count of all tracks, no file has a disc, and no folder has a
    number twice.
    """
    reaches = max((file.number or 0 for file in files), default=0)
    highest = max((track.number or 0 for track in tracks), default=0)
    stems = {file.name.rpartition(".")[0]: file.number for file in files if file.number}
    places = {(stem.rpartition("/")[0], number) for stem, number in stems.items()}
    runs = highest < reaches == len(tracks) and len(places) == len(stems)
    if not runs or any(file.disc for file in files):
        return None
    return {track.id: place for place, track in enumerate(tracks, start=1)}


def _off_s(track: CatalogTrack, file: File) -> float | None:
    if track.duration_ms is None or file.offered.duration_s is None:
        return None
    return abs(track.duration_ms / 1000 - file.offered.duration_s)
