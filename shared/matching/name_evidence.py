"""The evidence of the files' names, checked against measured lengths.

A name is evidence for a track by its title, or by its number where it has no title. A length beyond
the tolerance refutes it. Where names are exchanged in a ring (3 and 4 swapped), each is refuted and
each file fits another track of the ring: then the lengths decide. Where each file of a ring is
permitted as named, but clearly fits another track better, names and lengths contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from shared.matching.evidence import Album, File, Pair, Position
from shared.matching.titles import Likeness

# Parts of the tolerance: beyond the first a length fits badly, within the second it fits well.
_BADLY = 0.5
_WELL = 0.25
# The part of the files with numbers only that must have the length of their number's track.
_FITTING = 0.75
# Up to two refuted names are slips; more, and this part of all, discredit all names.
_SLIPS = 2
_REFUTED = 0.25
# With this part of the titles refuted, it is another recording of the album.
_MOST_REFUTED = 0.5
# Fewer tracks may agree with the numbers of a wrong album by chance.
_ENOUGH_TRACKS = 3


@dataclass(frozen=True, kw_only=True)
class NameEvidence:
    """How far the names of a torrent's files can be believed."""

    # By file name: the pair with the track that the name clearly means, if it means one.
    of_file: Mapping[str, Pair]
    # Pairs (track id, file name) in rings of exchanged names: lengths decide.
    exchanged: frozenset[tuple[str, str]]
    # Tracks whose names and lengths contradict each other.
    contradicted: frozenset[str]
    # Whether names decide where lengths are unknown: not if many names are refuted.
    names_usable: bool
    # Whether a number alone decides which track a file is; with a slip, only where no other track
    # has the file's length.
    numbers_usable: bool
    numbers_slip: bool
    # Whether the torrent seems to be another recording of the album: most of its titles have other
    # lengths. Those that have the right one may have it by chance.
    another_recording: bool
    # Unmeasured files with numbers only: until they are measured, numbers prove little.
    unmeasured: tuple[File, ...]

    def refuted(self, file: File) -> bool:
        """Whether the file's length contradicts its name."""
        named = self.of_file.get(file.name)
        return named is not None and not named.permitted


def name_evidence(album: Album) -> NameEvidence:
    """The evidence of all names, after the check against the lengths."""
    of_file = {file.name: named for file in album.files if (named := _named(album, file))}
    exchanged, contradicted = _rings(album, of_file)
    numbered = [pair for pair in of_file.values() if pair.likeness is Likeness.UNKNOWN]
    return NameEvidence(
        of_file=of_file,
        exchanged=exchanged,
        contradicted=contradicted,
        names_usable=_names_usable(album, list(of_file.values())),
        numbers_usable=_numbers_usable(album, numbered),
        another_recording=_another_recording(album, list(of_file.values())),
        numbers_slip=not all(pair.permitted for pair in numbered),
        unmeasured=tuple(pair.file for pair in numbered if not pair.file.measured),
    )


def nameless(album: Album, file: File) -> bool:
    """Whether the file's names have no title that can be compared with the album's."""
    alike = max(album.pairs[track.id, file.name].likeness for track in album.tracks)
    return alike is Likeness.UNKNOWN


def _named(album: Album, file: File) -> Pair | None:
    """The pair with the track that the name means: by the best title, then by the number."""
    pairs = [album.pairs[track.id, file.name] for track in album.tracks]
    best = max(pair.likeness for pair in pairs)
    if best is Likeness.UNKNOWN:
        named = [
            pair for pair in pairs if pair.likeness is best and pair.position is Position.MATCH
        ]
    elif best >= Likeness.NEAR:
        named = [pair for pair in pairs if pair.likeness is best]
        place = max(pair.position for pair in named)
        named = [pair for pair in named if pair.position is place]
    else:
        return None
    return named[0] if len(named) == 1 else None


def _rings(
    album: Album, of_file: Mapping[str, Pair]
) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
    """The exchanged pairs, and the tracks whose names and lengths contradict each other."""
    points_to = nx.DiGraph()
    for named in of_file.values():
        limit_s = _limit_s(named, album.tolerance_s)
        for track in album.tracks:
            other = album.pairs[track.id, named.file.name]
            if limit_s is not None and other.fits and (other.off_s or 0.0) <= limit_s:
                points_to.add_edge(named.track.id, track.id)
    exchanged: set[tuple[str, str]] = set()
    contradicted: set[str] = set()
    for ring in nx.strongly_connected_components(points_to):
        members = [named for named in of_file.values() if named.track.id in ring]
        if len(ring) < 2:
            continue
        if any(named.permitted for named in members):
            contradicted |= ring
        else:
            exchanged |= _fitting(album, ring, members)
    return frozenset(exchanged), frozenset(contradicted)


def _limit_s(named: Pair, tolerance_s: float) -> float | None:
    """How near another track's length must be for the file to fit it; None: it fits its own."""
    if not named.permitted:
        return tolerance_s
    if named.off_s is not None and named.off_s > _BADLY * tolerance_s:
        return _WELL * tolerance_s
    return None


def _fitting(album: Album, ring: set[str], members: list[Pair]) -> set[tuple[str, str]]:
    return {
        (track_id, named.file.name)
        for named in members
        for track_id in ring
        if album.pairs[track_id, named.file.name].fits
    }


def _names_usable(album: Album, named: list[Pair]) -> bool:
    refuted = sum(_is_another(album, pair) for pair in named)
    return refuted <= _SLIPS or refuted < _REFUTED * len(named)


def _another_recording(album: Album, named: list[Pair]) -> bool:
    """Whether most lengths refute their titles, and do not say that the names are exchanged."""
    titled = [pair for pair in named if pair.likeness >= Likeness.NEAR and pair.off_s is not None]
    refuted = [pair for pair in titled if not pair.permitted]
    enough = len(refuted) >= max(_ENOUGH_TRACKS, _MOST_REFUTED * len(titled))
    if not enough:
        return False
    exchanged = 0
    for pair in refuted:
        others = (album.pairs[track.id, pair.file.name].off_s for track in album.tracks)
        nearest = min((off_s for off_s in others if off_s is not None), default=album.tolerance_s)
        exchanged += nearest <= _BADLY * album.tolerance_s
    return exchanged < _FITTING * len(refuted)


def _is_another(album: Album, named: Pair) -> bool:
    """Whether the file's length refutes its name and fits another track."""
    fits = (album.pairs[track.id, named.file.name].fits for track in album.tracks)
    return not named.permitted and any(fits)


def _numbers_usable(album: Album, numbered: list[Pair]) -> bool:
    """Whether the lengths confirm that the numbers are this album's.

    The numbers are another edition's if a refuted file fits another track.
    """
    measured = [pair for pair in numbered if pair.off_s is not None]
    fitting = sum(pair.fits for pair in measured)
    shifted = any(_is_another(album, pair) for pair in measured)
    enough = len(album.tracks) >= _ENOUGH_TRACKS
    return enough and not shifted and fitting >= _FITTING * len(measured)
