"""Which file is which track: sure, doubtful with the evidence, or missing. Never a guess.

1. Names with lengths that do not contradict them: the assignment of all tracks of the album with
   the most points. A track for which another assignment is nearly as good is doubtful.
2. What is left, by lengths alone: only a track and a file that are the only ones near each other,
   and only in a torrent that is this album as far as can be seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from shared.matching.assignment import Settled, settle
from shared.matching.by_length import by_length, doubts_of
from shared.matching.evidence import Album, Pair, Position
from shared.matching.model import Assignment, Doubt, Offered
from shared.matching.name_evidence import NameEvidence, claims_of
from shared.matching.titles import Likeness
from shared.tracks import CatalogTrack


def assign(
    tracks: Sequence[CatalogTrack],
    wanted: Collection[str],
    offered: Sequence[Offered],
    *,
    tolerance_s: float,
) -> Assignment:
    """Decide for each wanted track which of the offered files it is.

    `tracks` is the whole album: tracks that nobody wants compete for the files all the same.
    Ids of tracks and names of files are unique; the order of neither matters.

    A pair is only possible if both lengths, where known, are within `tolerance_s` of each other.
    What is sure of a file that is not measured yet is so by its name alone: measure it and ask
    again, until `to_measure` has nothing left; what is then sure is proven by length as well, but
    for tracks whose length the catalog does not know.
    """
    if not tracks or not offered:
        return Assignment(sure={}, doubtful={}, missing=frozenset(wanted))
    album = Album(tracks, offered, tolerance_s=tolerance_s)
    claims = claims_of(album)
    settled = settle(album, _strong(album, claims))
    sure = {
        track_id: pair
        for track_id, pair in settled.sure.items()
        if track_id not in claims.contradicted and _believed(album, claims, pair)
    }
    sure |= by_length(album, claims, sure)
    doubtful = doubts_of(album, claims, sure, _why(settled, claims))
    return _of_wanted(wanted, sure, doubtful)


def to_measure(assignment: Assignment, offered: Sequence[Offered]) -> list[Offered]:
    """The files whose lengths would tell more about the wanted tracks, in their order."""
    names = {one.name for one in assignment.sure.values()} | {
        candidate["file"]
        for doubt in assignment.doubtful.values()
        for candidate in doubt.candidates
    }
    return [one for one in offered if one.duration_s is None and one.name in names]


def _strong(album: Album, claims: NameEvidence) -> list[Pair]:
    """The pairs that names speak for: a file only with the tracks that its name is nearest to."""
    strong = []
    for file in album.files:
        pairs = [album.pairs[track.id, file.name] for track in album.tracks]
        named = [
            pair for pair in pairs
            if pair.permitted and (_speaks(pair, claims) or (album.single and _serves_alone(pair)))
        ]  # fmt: skip
        nearest = max(map(_nearness, named), default=None)
        strong += [pair for pair in named if _nearness(pair) == nearest]
    return strong


def _nearness(pair: Pair) -> tuple[Likeness, int, Position]:
    return pair.likeness, pair.title_score, pair.position


def _speaks(pair: Pair, claims: NameEvidence) -> bool:
    """Whether the names alone say it is this track, if the lengths do not object."""
    if pair.likeness is Likeness.SAME:
        return True
    numbered = pair.position is Position.MATCH
    checked = pair.track.duration_ms is not None
    if claims.refuted(pair.file):
        return False
    if pair.likeness is Likeness.NEAR:
        return numbered or checked
    if pair.likeness is Likeness.SIMILAR:
        return numbered and checked
    if claims.of_file.get(pair.file.name) is not pair or not (checked and claims.numbers_hold):
        return False
    return not pair.file.measured or not claims.unmeasured


def _serves_alone(pair: Pair) -> bool:
    """Whether the only file is the only track asked for, though its name does not say so.

    It must not say that it is something else.
    """
    if pair.likeness is not Likeness.UNKNOWN:
        return pair.likeness >= Likeness.SIMILAR
    return pair.track.duration_ms is not None and pair.position is not Position.CONTRARY


def _believed(album: Album, claims: NameEvidence, pair: Pair) -> bool:
    """Whether the name may decide; where names are known to be wrong, it needs the length.

    That is, a length that no other track of the album has.
    """
    by_number = pair.likeness is Likeness.UNKNOWN
    if claims.names_hold and not (by_number and claims.numbers_slip):
        return True
    others = (album.pairs[track.id, pair.file.name] for track in album.tracks)
    return pair.fits and not any(other.permitted and other is not pair for other in others)


def _why(settled: Settled, claims: NameEvidence) -> Mapping[str, str]:
    """The reason of each track that the names do not settle."""
    return dict.fromkeys(settled.doubtful, "several files or tracks are equally likely") | (
        dict.fromkeys(claims.contradicted, "names and lengths contradict each other")
    )


def _of_wanted(
    wanted: Collection[str], sure: Mapping[str, Pair], doubtful: Mapping[str, Doubt]
) -> Assignment:
    ids = frozenset(wanted)
    return Assignment(
        sure={one: pair.file.offered for one, pair in sure.items() if one in ids},
        doubtful={one: doubt for one, doubt in doubtful.items() if one in ids},
        missing=ids - sure.keys() - doubtful.keys(),
    )
