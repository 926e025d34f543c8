"""The tracks and files that names leave open: matched by length, or reported as doubts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.matching.copies import choose
from shared.matching.evidence import Album, File, Pair, Position
from shared.matching.model import Doubt
from shared.matching.name_evidence import NameEvidence, nameless
from shared.matching.titles import Likeness, title_of
from shared.tracks import CatalogTrack

# By length alone, a pair has to be within this part of the tolerance, and no other track or file
# may be within so many tolerances.
_WELL = 0.5
_ROOM = 2
# A torrent is this album if this part of its tracks, or of its files where they are fewer, is
# found; at least three, if it has more files than the album has tracks.
_FOUND = 0.75
_ENOUGH = 3
_ENOUGH_SHUFFLED = 6
_EXACT_S = 1.0
_MOST_CANDIDATES = 10


def by_length(album: Album, evidence: NameEvidence, sure: Mapping[str, Pair]) -> dict[str, Pair]:
    """By track id: the pairs that lengths alone prove, among those that are not `sure`."""
    left = _Left(album, evidence, sure)
    exchanged = [
        pair
        for pair in left.pairs
        if (pair.track.id, pair.file.name) in evidence.exchanged and left.alone(pair, room=1)
    ]
    blank = [
        pair
        for pair in left.pairs
        if left.measured
        and _open(evidence, pair)
        and pair.file in left.nameless
        and left.alone(pair, room=_ROOM)
    ]
    named = _best(album, [*exchanged, *_shuffled(left, evidence)])
    found = named | _best(album, blank)
    return found if _is_this_album(album, left, {*sure, *found}) else named


def _best(album: Album, pairs: Sequence[Pair]) -> dict[str, Pair]:
    """By track id: the best of the copies of each track."""
    by_track: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_track.setdefault(pair.track.id, []).append(pair)
    choices = {track_id: choose(album, copies) for track_id, copies in by_track.items()}
    return {
        track_id: choice.taken for track_id, choice in choices.items() if choice.taken is not None
    }


def _shuffled(left: _Left, evidence: NameEvidence) -> list[Pair]:
    """The pairs of files that have the names of other tracks of the album, without a rule.

    Each of them has to fit one track alone: of another album's files a fifth does.
    """
    refuted = {file.name for file in left.files if evidence.refuted(file)}
    found = [
        pair
        for pair in left.pairs
        if pair.file.name in refuted
        and pair.likeness is not Likeness.OTHER_RECORDING
        and pair.off_s is not None
        and pair.off_s <= _WELL * pair.tolerance_s
        and left.alone(pair, room=_ROOM)
    ]
    tracks = {pair.track.id for pair in found}
    return found if len(tracks) >= _ENOUGH_SHUFFLED and len(found) == len(refuted) else []


def doubts_of(
    album: Album, evidence: NameEvidence, sure: Mapping[str, Pair], known: Mapping[str, Open]
) -> dict[str, Doubt]:
    """By track id: the candidates of the tracks that are not `sure`, where there are any.

    `known` is what is known already, by track id.
    """
    left = _Left(album, evidence, sure)
    doubts = {}
    for track in left.tracks:
        pairs = [album.pairs[track.id, file.name] for file in left.candidates]
        possible = sorted(
            (
                pair
                for pair in pairs
                if pair.permitted and (album.single or _possible(evidence, pair))
            ),
            key=lambda pair: (-pair.points, pair.file.name),
        )
        if possible:
            why = known.get(track.id) or Open(reason=_reason(possible[0]))
            candidates = tuple(shown(evidence, pair) for pair in possible[:_MOST_CANDIDATES])
            doubts[track.id] = Doubt(
                reason=why.reason, candidates=candidates, to_compare=why.to_compare
            )
    return doubts


@dataclass(frozen=True, kw_only=True)
class Open:
    """Why a track is open, and the files whose audio would decide: see `Doubt`."""

    reason: str
    to_compare: tuple[str, ...] = ()


class _Left:
    """The tracks and files without a sure partner."""

    def __init__(self, album: Album, evidence: NameEvidence, sure: Mapping[str, Pair]) -> None:
        self._album = album
        taken = {pair.file.name for pair in sure.values()}
        self.tracks = [track for track in album.tracks if track.id not in sure]
        self.files = [file for file in album.files if file.name not in taken]
        self.pairs = [
            pair
            for track in self.tracks
            for file in self.files
            if (pair := album.pairs[track.id, file.name]).fits
        ]
        # An unmeasured file that is sure by its number only may still be another track.
        self.candidates = [*self.files, *(one for one in evidence.unmeasured if one.name in taken)]
        self.nameless = [file for file in self.files if nameless(album, file)]
        self.measured = not evidence.unmeasured and all(file.measured for file in self.nameless)

    def alone(self, pair: Pair, *, room: int) -> bool:
        """Whether no other open track or file is near this length."""
        return not any(
            self._could_be(album_track, pair.file, room)
            for album_track in self.tracks
            if album_track.id != pair.track.id
        ) and not any(
            self._near(pair.track, file, room)
            for file in self.files
            if file.name != pair.file.name and not self._copies(pair.file, file)
        )

    def _could_be(self, track: CatalogTrack, file: File, room: int) -> bool:
        other = self._album.pairs[track.id, file.name]
        if other.off_s is None:
            return other.likeness >= Likeness.UNKNOWN
        return other.off_s <= room * self._album.tolerance_s

    def _near(self, track: CatalogTrack, file: File, room: int) -> bool:
        pair = self._album.pairs[track.id, file.name]
        off_s = pair.off_s
        if self._album.foreign(pair):
            return False
        return off_s is not None and off_s <= room * self._album.tolerance_s

    def _copies(self, one: File, other: File) -> bool:
        """Whether two files have the same name, as copies of one recording."""
        return _stem(one.name) == _stem(other.name) and one.disc == other.disc


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0].casefold()


def _open(evidence: NameEvidence, pair: Pair) -> bool:
    """Whether the length fits well, and the name does not contradict."""
    if pair.off_s is None or pair.off_s > _WELL * pair.tolerance_s:
        return False
    if pair.likeness is not Likeness.UNKNOWN:
        return False
    return pair.position is not Position.CONTRARY or evidence.refuted(pair.file)


def _is_this_album(album: Album, left: _Left, found: Collection[str]) -> bool:
    """Whether enough tracks are found: some lengths fit in any album by coincidence."""
    files = len(left.nameless) + len(album.tracks) - len(left.tracks)
    if files > len(album.tracks) and len(found) < _ENOUGH:
        return False
    return len(found) >= _FOUND * min(len(album.tracks), files)


def _possible(evidence: NameEvidence, pair: Pair) -> bool:
    """Whether an administrator should see this permitted pair: some evidence supports it."""
    if pair.likeness is Likeness.OTHER_TITLE:
        if pair.fits and evidence.refuted(pair.file):
            return True
        named = pair.position is Position.MATCH or _contains_title(pair)
        return named and not _believed(evidence, pair)
    if pair.likeness is Likeness.UNKNOWN:
        return pair.fits or not pair.file.measured or pair.position >= Position.NUMBER
    return True


def _contains_title(pair: Pair) -> bool:
    """Whether the track's title stands in a name of a style that is not known, and the length fits.

    Then the torrent does not lack the track for certain.
    """
    if pair.off_s is None or pair.off_s > _EXACT_S:
        return False
    base = title_of(pair.track.title).base
    return len(base) > 1 and any(
        f" {base} " in f" {reading.title.core} " for reading in pair.file.readings
    )


def _believed(evidence: NameEvidence, pair: Pair) -> bool:
    """Whether the file's name is of another track of the album, and its length agrees."""
    named = evidence.of_file.get(pair.file.name)
    return named is not None and named.permitted and named.track.id != pair.track.id


def _reason(pair: Pair) -> str:
    if not pair.file.measured:
        return "the likeliest file is not measured yet"
    if pair.track.duration_ms is None:
        return "the catalog does not know the length, and no title says it clearly"
    return "no name says it clearly, and the length does not single one out"


def shown(evidence: NameEvidence, pair: Pair) -> Mapping[str, Any]:
    """A candidate as an administrator sees it: see `Doubt`."""
    return {
        "file": pair.file.name,
        "duration_s": pair.file.offered.duration_s,
        "title_score": pair.title_score,
        "why": _why(evidence, pair),
    }


def _why(evidence: NameEvidence, pair: Pair) -> str:
    said = {
        Likeness.SAME: "the title is the same",
        Likeness.NEAR: "the title is nearly the same",
        Likeness.SIMILAR: "the title is similar",
        Likeness.UNKNOWN: "no title to compare",
        Likeness.OTHER_RECORDING: "the title names another recording of the song",
        Likeness.OTHER_TITLE: "the title is another",
    }[pair.likeness]
    placed = {
        Position.MATCH: "disc and number are right",
        Position.NUMBER: "the number is right, the disc unknown",
        Position.UNKNOWN: "no number",
        Position.CONTRARY: "disc or number is another",
    }[pair.position]
    length = "length unknown" if pair.off_s is None else f"{pair.off_s:.1f} s off"
    refuted = ", its own name's track has another length" if evidence.refuted(pair.file) else ""
    return f"{said}, {placed}, {length}{refuted}{_sounds(pair)}"


def _sounds(pair: Pair) -> str:
    """What folders, tags and the file itself say of the recording."""
    marks, channels = sorted(pair.file.marks), pair.file.offered.channels
    marked = f", it is marked {' and '.join(marks)}" if marks else ""
    aside = ", it lies beside the album" if pair.file.folder.aside else ""
    layout = f", {channels} channels" if channels not in {None, 2} else ""
    return f"{marked}{aside}{layout}"
