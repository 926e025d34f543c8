"""Which file is which track: sure, doubtful with evidence, or missing. There is no guess.

1. By names, where lengths do not contradict them: the assignment of all tracks of the album that
   has the most points. A track for which another assignment is nearly as good is doubtful.
   So is one that has several files, of which none is clearly its.
2. The rest by lengths alone: a track and a file that have no other candidate near their length, and
   only in a torrent that appears to be this album.
3. The rest by disc and number, where the lengths of all agree within a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from shared.matching.album_folder import elsewhere, within_album
from shared.matching.assignment import Settled, settle
from shared.matching.by_length import Open, by_length, doubts_of
from shared.matching.by_place import by_place
from shared.matching.evidence import Album, Pair, Position
from shared.matching.hidden_track import hidden_tracks
from shared.matching.model import Assignment, Doubt, Offered
from shared.matching.name_evidence import NameEvidence, name_evidence
from shared.matching.titles import Likeness
from shared.matching.twins import serves, without_twins
from shared.tracks import CatalogTrack


def assign(
    tracks: Sequence[CatalogTrack],
    wanted: Collection[str],
    offered: Sequence[Offered],
    *,
    tolerance_s: float,
    album: str | None = None,
) -> Assignment:
    """Decide for each wanted track which of the offered files it is.

    `tracks` is the whole album: tracks that are not wanted compete for the files as well. Ids of
    tracks and names of files are unique; the order of neither matters. `album` is its name: where a
    torrent has a folder of that name beside others, only its files are taken.

    A pair is possible only if both lengths, where known, are within `tolerance_s` of each other. A
    file that is not measured is sure by its name alone: measure it and call again, until
    `to_measure` gives nothing. Then each sure pair agrees in length as well, except where the
    catalog has no length for the track. Then compare: `to_compare`.
    """
    if not tracks or not offered:
        return Assignment(sure={}, doubtful={}, missing=frozenset(wanted))
    kept, twins = without_twins(tracks)
    inside, outside = within_album(kept, offered, album)
    sure, doubtful = _decided(Album(kept, inside, tolerance_s=tolerance_s, name=album))
    missing = [one for one in kept if one.id not in sure and one.id not in doubtful]
    if outside and missing:
        doubtful |= elsewhere(Album(missing, outside, tolerance_s=tolerance_s, name=album))
    for track_id, others in twins.items():
        sure |= {
            twin.id: pair for twin in others if (pair := sure.get(track_id)) and serves(pair, twin)
        }
        doubtful |= {twin.id: doubtful[track_id] for twin in others if track_id in doubtful}
    return _of_wanted(wanted, sure, doubtful)


def _decided(album: Album) -> tuple[dict[str, Pair], dict[str, Doubt]]:
    """The sure pairs and the doubts, by track id."""
    evidence = name_evidence(album)
    settled = settle(album, _strong(album, evidence))
    sure = {
        track_id: pair
        for track_id, pair in settled.sure.items()
        if track_id not in evidence.contradicted and _believed(album, evidence, pair)
    }
    sure |= by_length(album, evidence, sure)
    sure |= by_place(album, sure)
    doubtful = doubts_of(album, evidence, sure, _open(settled, evidence))
    return sure, hidden_tracks(album, evidence, sure) | doubtful


def to_measure(assignment: Assignment, offered: Sequence[Offered]) -> list[Offered]:
    """The files whose lengths may decide about the wanted tracks, in their order."""
    names = {one.name for one in assignment.sure.values()} | {
        candidate["file"]
        for doubt in assignment.doubtful.values()
        for candidate in doubt.candidates
    }
    return [one for one in offered if one.duration_s is None and one.name in names]


def to_compare(assignment: Assignment, offered: Sequence[Offered]) -> list[Offered]:
    """The files whose decoded audio may decide about the wanted tracks, in their order."""
    names = {name for doubt in assignment.doubtful.values() for name in doubt.to_compare}
    return [one for one in offered if one.loudness is None and one.name in names]


def names_another_recording(track: CatalogTrack, offer: Offered, album: str | None) -> bool:
    """Whether the file's folders, name or tags say that it is another recording of the song."""
    only = Album([track], [offer], tolerance_s=0.0, name=album)
    return any(only.foreign(pair) for pair in only.pairs.values())


def _strong(album: Album, evidence: NameEvidence) -> list[Pair]:
    """The pairs that names support: a file only with the tracks that its name is nearest to."""
    strong = []
    for file in album.files:
        pairs = [album.pairs[track.id, file.name] for track in album.tracks]
        named = [
            pair
            for pair in pairs
            if pair.permitted
            and (_supported(pair, evidence) or (album.single and _serves_alone(pair)))
        ]
        nearest = max(map(_nearness, named), default=None)
        strong += [pair for pair in named if _nearness(pair) == nearest]
    return strong


def _nearness(pair: Pair) -> tuple[Likeness, int, Position]:
    return pair.likeness, pair.title_score, pair.position


def _supported(pair: Pair, evidence: NameEvidence) -> bool:
    """Whether the names are enough for this pair, if the lengths do not contradict."""
    if pair.likeness is Likeness.SAME:
        return True
    numbered = pair.position is Position.MATCH
    checked = pair.track.duration_ms is not None
    if evidence.refuted(pair.file):
        return False
    if pair.likeness is Likeness.NEAR:
        return numbered or checked
    if pair.likeness is Likeness.SIMILAR:
        return numbered and checked
    if evidence.of_file.get(pair.file.name) is not pair or not (
        checked and evidence.numbers_usable
    ):
        return False
    return not pair.file.measured or not evidence.unmeasured


def _serves_alone(pair: Pair) -> bool:
    """Whether the only file may be the only track, though its name does not say so.

    The name must not say that it is another track.
    """
    if pair.likeness is not Likeness.UNKNOWN:
        return pair.likeness >= Likeness.SIMILAR
    return pair.track.duration_ms is not None and pair.position is not Position.CONTRARY


def _believed(album: Album, evidence: NameEvidence, pair: Pair) -> bool:
    """Whether the name may decide: where names are known to be wrong, the length has to confirm it.

    No other track of the album may have that length. Of another recording of the album no name
    decides.
    """
    if evidence.another_recording:
        return False
    by_number = pair.likeness is Likeness.UNKNOWN
    if evidence.names_usable and not (by_number and evidence.numbers_slip):
        return True
    others = (album.pairs[track.id, pair.file.name] for track in album.tracks)
    return pair.fits and not any(other.permitted and other is not pair for other in others)


def _open(settled: Settled, evidence: NameEvidence) -> Mapping[str, Open]:
    """What is known of each track that the names leave open."""
    equal = Open(reason="several files or tracks are equally likely")
    against = Open(reason="names and lengths contradict each other")
    another = Open(
        reason="most files of this torrent have other lengths than their tracks: it may be another"
        " recording of the album"
    )
    return {
        **(dict.fromkeys(settled.sure, another) if evidence.another_recording else {}),
        **dict.fromkeys(settled.doubtful, equal),
        **{
            track_id: Open(
                reason="several files are called so, and they are not one recording in two formats",
                to_compare=choice.to_compare,
            )
            for track_id, choice in settled.rivals.items()
        },
        **dict.fromkeys(evidence.contradicted, against),
    }


def _of_wanted(
    wanted: Collection[str], sure: Mapping[str, Pair], doubtful: Mapping[str, Doubt]
) -> Assignment:
    ids = frozenset(wanted)
    return Assignment(
        sure={one: pair.file.offered for one, pair in sure.items() if one in ids},
        doubtful={one: doubt for one, doubt in doubtful.items() if one in ids},
        missing=ids - sure.keys() - doubtful.keys(),
    )
