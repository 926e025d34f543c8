"""Which file is which track: by names, proven by lengths, one to one, and never guessed."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from shared.matching.assign import assign, to_measure
from shared.matching.cue import parse, parts
from shared.matching.model import Assignment, Offered
from shared.tracks import CatalogTrack
from tests.support.albums import (
    ADDED,
    BESIDE,
    EXTRAS,
    LENGTHS,
    LIES,
    MAPPINGS,
    SCHEMES,
    TITLES,
    TOLERANCE_S,
    Recipe,
    Torrent,
    build,
)
from tests.support.albums import ALBUM as NAME

ALBUM = [("Alpha", 200.0), ("Beta", 240.0), ("Gamma", 300.0), ("Delta", 180.0), ("Epsilon", 400.0)]


def album(*songs: tuple[str, float | None], per_disc: int = 99) -> list[CatalogTrack]:
    return [
        CatalogTrack(
            id=title_id(place),
            title=title,
            artist="The Artist",
            disc=place // per_disc + 1,
            number=place % per_disc + 1,
            duration_ms=None if length_s is None else round(length_s * 1000),
        )
        for place, (title, length_s) in enumerate(songs)
    ]


def title_id(place: int) -> str:
    return f"t{place + 1}"


def files(*named: tuple[str, float | None], size_bytes: int = 1000) -> list[Offered]:
    return [
        Offered(name=name, size_bytes=size_bytes, duration_s=length_s) for name, length_s in named
    ]


def decide(
    tracks: Sequence[CatalogTrack],
    offered: Sequence[Offered],
    wanted: Collection[str] | None = None,
    name: str | None = None,
) -> Assignment:
    ids = {track.id for track in tracks} if wanted is None else wanted
    return assign(tracks, ids, offered, tolerance_s=TOLERANCE_S, album=name)


def sure(tracks: Sequence[CatalogTrack], offered: Sequence[Offered]) -> dict[str, str]:
    return {track: one.name for track, one in decide(tracks, offered).sure.items()}


def test_an_album_by_names_and_lengths() -> None:
    """Files with right names and lengths are their tracks; what is no track is left alone."""
    tracks = album(*ALBUM)
    offered = files(
        *((f"0{n}. {title}.flac", s + 0.4) for n, (title, s) in enumerate(ALBUM, start=1)),
        ("06. Hidden.flac", 222.0), ("Sample/sample.mp3", 30.0),
    )  # fmt: skip
    decided = decide(tracks, offered)
    assert [decided.sure[title_id(n)].name[:2] for n in range(5)] == ["01", "02", "03", "04", "05"]
    assert not decided.doubtful
    assert not decided.missing


def test_only_what_is_wanted_is_told() -> None:
    """Other tracks of the album compete for the files, and are not told of."""
    tracks = album(("Song", 200), ("Song", 200))
    offered = files(("01 Song.flac", 200))
    decided = decide(tracks, offered, {"t2"})
    assert decided == Assignment(sure={}, doubtful={}, missing=frozenset({"t2"}))


def test_what_the_torrent_lacks_is_missing() -> None:
    """Fewer files than tracks: the others are missing, not doubtful."""
    decided = decide(album(*ALBUM), files(("01 Alpha.flac", 200), ("04 Delta.flac", 180)))
    assert decided.sure.keys() == {"t1", "t4"}
    assert decided.missing == {"t2", "t3", "t5"}


def test_a_length_beyond_the_tolerance_is_another_recording() -> None:
    """No name makes a file a track that is longer or shorter."""
    assert decide(album(*ALBUM), files(("01 Alpha.flac", 206.1))).missing >= {"t1"}
    assert sure(album(*ALBUM), files(("01 Alpha.flac", 205.9))) == {"t1": "01 Alpha.flac"}


def test_exchanged_names_are_found_out_by_lengths() -> None:
    """Files 3 and 4 exchanged in names but right in length: the lengths count."""
    tracks = album(*ALBUM)
    named = [("01 Alpha", 200), ("02 Beta", 240), ("03 Gamma", 180.2), ("04 Delta", 299.5)]
    offered = files(*((f"{name}.flac", length_s) for name, length_s in named))
    assert sure(tracks, offered) == {
        "t1": "01 Alpha.flac", "t2": "02 Beta.flac", "t3": "04 Delta.flac", "t4": "03 Gamma.flac",
    }  # fmt: skip


def test_a_wrong_name_that_goes_with_no_other_is_doubtful() -> None:
    """A file that fits another track by chance is not taken for it, as nothing was exchanged."""
    offered = files(("01 Alpha.flac", 200), ("02 Beta.flac", 240), ("03 Gamma.flac", 180))
    decided = decide(album(*ALBUM), offered)
    assert decided.sure.keys() == {"t1", "t2"}
    (candidate,) = decided.doubtful["t4"].candidates
    assert candidate["file"] == "03 Gamma.flac"
    assert "another length" in str(candidate["why"])


def test_names_and_lengths_that_contradict_each_other_are_doubtful() -> None:
    """Both are permitted as named, and would each fit the other far better: doubtful."""
    tracks = album(("Alpha", 200), ("Beta", 204), ("Gamma", 300))
    offered = files(("01 Alpha.flac", 204.1), ("02 Beta.flac", 199.9), ("03 Gamma.flac", 300))
    decided = decide(tracks, offered)
    assert decided.doubtful.keys() == {"t1", "t2"}
    assert "contradict" in decided.doubtful["t1"].reason
    assert decided.sure.keys() == {"t3"}


def test_where_names_lie_the_others_are_not_believed_either() -> None:
    """Names that went round among many: what lengths do not tell apart is in doubt."""
    songs = [*ALBUM, ("Near", 270.0), ("Nearer", 272.0)]
    lengths = [240.0, 300.0, 180.0, 200.0, 400.0, 271.5, 270.5]
    offered = files(*((f"{t}.flac", s) for (t, _), s in zip(songs, lengths, strict=True)))
    decided = decide(album(*songs), offered)
    assert {track: one.name for track, one in decided.sure.items()} == {
        "t1": "Delta.flac", "t2": "Alpha.flac", "t3": "Beta.flac", "t4": "Gamma.flac",
        "t5": "Epsilon.flac",
    }  # fmt: skip
    assert decided.doubtful.keys() == {"t6", "t7"}


def test_another_pressing_with_other_gaps_is_no_contradiction() -> None:
    """Lengths off by some seconds, none fitting another track, leave the names their word."""
    offered = files(("01 Alpha.flac", 203.5), ("02 Beta.flac", 243.5), ("03 Gamma.flac", 303.5))
    assert sure(album(*ALBUM), offered).keys() == {"t1", "t2", "t3"}


def test_copies_of_one_recording_are_no_doubt() -> None:
    """Of FLAC and MP3 the lossless one is taken, however large the other is."""
    tracks = album(*ALBUM)
    mp3 = files(("MP3/01 Alpha.mp3", 200.05), size_bytes=9000)
    assert sure(tracks, mp3 + files(("FLAC/01 Alpha.flac", 200))) == {"t1": "FLAC/01 Alpha.flac"}


def test_two_recordings_of_one_name_are_a_doubt() -> None:
    """Both within the tolerance, but clearly not the same: an administrator decides."""
    decided = decide(album(*ALBUM), files(("a/Alpha.flac", 196), ("b/Alpha.flac", 204)))
    assert decided.doubtful.keys() == {"t1"}
    assert {each["file"] for each in decided.doubtful["t1"].candidates} == {
        "a/Alpha.flac", "b/Alpha.flac",
    }  # fmt: skip


def test_the_same_title_twice_is_told_apart_by_numbers() -> None:
    """ "Intro" of disc 1 and "Intro" of disc 2 are two recordings."""
    tracks = album(("Intro", 60), ("Song", 200), ("Intro", 61), ("Other", 300), per_disc=2)
    offered = files(("CD1/01 Intro.flac", 61), ("CD2/01 Intro.flac", 60))
    assert sure(tracks, offered) == {"t1": "CD1/01 Intro.flac", "t3": "CD2/01 Intro.flac"}


def test_the_same_title_twice_without_numbers_is_a_doubt() -> None:
    """Nothing tells the two apart, also when the torrent has only one of them."""
    tracks = album(("Intro", 60), ("Song", 200), ("Intro", 61))
    assert decide(tracks, files(("Intro.flac", 60), ("x/Intro.flac", 61))).doubtful.keys() == {
        "t1", "t3",
    }  # fmt: skip
    assert decide(tracks, files(("Intro.flac", 60))).doubtful.keys() == {"t1", "t3"}
    # The one without a number may be a copy of the one with it.
    assert "t3" not in sure(tracks, files(("01 Intro.flac", 60), ("Intro.flac", 60)))


def test_numbers_alone_are_proven_by_the_lengths() -> None:
    """ "03.flac" is the third track where all such files have the lengths of their tracks."""
    lengths = [200.2, 240.1, 299.8, 180.3, 150.0, 270.0, 400.1, 401.2]
    tracks = album(*((f"Song {length_s}", round(length_s)) for length_s in lengths))
    numbered = [(f"0{n}.flac", length_s) for n, length_s in enumerate(lengths, start=1)]
    assert sure(tracks, files(*numbered)) == {f"t{n}": f"0{n}.flac" for n in range(1, 9)}
    # One file more at the front: the numbers are another edition's, and 7 and 8 cannot be told.
    shifted = [(f"0{n}.flac", length_s) for n, length_s in enumerate([90.0, *lengths], start=1)]
    decided = decide(tracks, files(*shifted))
    assert {track: one.name for track, one in decided.sure.items()} == {
        f"t{n}": f"0{n + 1}.flac" for n in range(1, 7)
    }
    assert decided.doubtful.keys() == {"t7", "t8"}


def test_numbers_prove_little_until_all_are_measured() -> None:
    """One file that has its number's length may have it by chance."""
    offered = files(*((f"0{n}.flac", None if n != 3 else 300.0) for n in (1, 2, 3, 4, 5)))
    decided = decide(album(*ALBUM), offered, {"t3"})
    assert decided.doubtful.keys() == {"t3"}
    assert len(to_measure(decided, offered)) == 4


def test_a_file_between_the_others_shifts_their_numbers() -> None:
    """From there on numbers say nothing, also where the next track's length would do."""
    lengths = [200.0, 240.0, 300.0, 180.0, 150.0, 270.0, 330.0, 333.0]
    tracks = album(*((f"Song {length_s}", length_s) for length_s in lengths))
    shifted = [*lengths[:6], 90.0, *lengths[6:]]
    offered = files(*((f"0{n}.flac", s) for n, s in enumerate(shifted, start=1)))
    decided = decide(tracks, offered)
    assert decided.sure.keys() == {f"t{n}" for n in range(1, 7)}
    assert decided.doubtful.keys() == {"t7", "t8"}
    lengths[7] = 400.0
    tracks = album(*((f"Song {length_s}", length_s) for length_s in lengths))
    shifted = [*lengths[:6], 334.0, *lengths[6:]]
    offered = files(*((f"0{n}.flac", s) for n, s in enumerate(shifted, start=1)))
    assert "t7" in decide(tracks, offered).doubtful


def test_a_title_that_a_length_refutes_is_not_read_as_a_slip() -> None:
    """It is nearly another track's title, but it is exactly one whose length it has not."""
    tracks = album(("Garden of the North", 200), ("Gardens of the North", 260))
    decided = decide(tracks, files(("Garden of the North.flac", 260)))
    assert decided.doubtful.keys() == {"t2"}


def test_a_number_does_not_outweigh_another_title() -> None:
    """Right number, right length, but another song's title or a live one's: a doubt, no match."""
    for name in ("03 Something Else.flac", "03 Gamma (Live).flac", "Gamma (Someone Remix).flac"):
        decided = decide(album(*ALBUM), files(("01 Alpha.flac", 200), (name, 300)))
        assert decided.sure.keys() == {"t1"}
        assert decided.doubtful.keys() == {"t3"}


def test_a_name_of_an_unknown_style_is_a_doubt_where_the_title_stands_in_it() -> None:
    """ "The torrent lacks it" is said only where nothing speaks for a file."""
    for name in ("xx99 Gamma zz.flac", "Gamma 77.flac", "Some Label Gamma.flac"):
        decided = decide(album(*ALBUM), files(("01 Alpha.flac", 200), (name, 300.4)))
        assert decided.doubtful.keys() == {"t3"}
        assert "t3" in decide(album(*ALBUM), files(("01 Alpha.flac", 200), (name, 303))).missing


def test_another_song_of_the_right_length_is_no_candidate() -> None:
    """Neither title nor number: an extra that is as long as a missing track is just that."""
    decided = decide(album(*ALBUM), files(("01 Alpha.flac", 200), ("09 Extra Song.flac", 300)))
    assert decided.missing == {"t2", "t3", "t4", "t5"}


def test_names_in_another_script_are_taken_by_number_and_length() -> None:
    """A transliteration cannot be compared; disc, number and length can."""
    tracks = album(("Группа крови", 285), ("Звезда", 226), ("Ночь", 250))
    offered = files(("01 Gruppa krovi.mp3", 285), ("02 Zvezda.mp3", 226), ("03 Noch.mp3", 250))
    assert sure(tracks, offered).keys() == {"t1", "t2", "t3"}


def test_another_script_in_a_torrent_that_keeps_scripts_is_another_title() -> None:
    """Where the other titles are written as in the catalog, this one is no transliteration."""
    tracks = album(("Группа крови", 285), ("Ночь", 250), ("Звезда", 226))
    named = [("01 Группа крови", 285), ("02 Ночь", 250), ("03 Bonus", 226)]
    decided = decide(tracks, files(*((f"{name}.mp3", length_s) for name, length_s in named)))
    assert decided.sure.keys() == {"t1", "t2"}


def test_most_lengths_tell_another_recording_of_the_album() -> None:
    """A concert with the songs of the album, without a word of it: one has the length by chance."""
    lengths = [200.0, 240.0, 300.0, 180.0, 150.0]
    tracks = album(*((f"Song {n}x", length_s) for n, length_s in enumerate(lengths)))
    played = [203.0, 275.0, 341.0, 219.0, 120.0]
    concert = files(*((f"0{n + 1} Song {n}x.flac", s) for n, s in enumerate(played)))
    decided = decide(tracks, concert)
    assert not decided.sure
    assert "another recording of the album" in decided.doubtful["t1"].reason
    # Two of another mix make no concert.
    mixed = files(
        *((f"0{n + 1} Song {n}x.flac", s) for n, s in enumerate(lengths[:3] + played[3:]))
    )
    assert decide(tracks, mixed).sure.keys() == {"t1", "t2", "t3"}


def test_by_length_alone_only_what_is_left_of_this_album() -> None:
    """A nameless file is the last track without one if no other is near; of a few, nothing is."""
    tracks = album(*ALBUM)
    most = files(*((f"0{n} {t}.flac", s) for n, (t, s) in enumerate(ALBUM[:4], start=1)))
    assert sure(tracks, most + files(("8f3a2b9cd0.flac", 401)))["t5"] == "8f3a2b9cd0.flac"
    assert "t5" not in sure(tracks, most + files(("8f3a2b9cd0.flac", 404)))
    two = files(("8f3a2b9cd0.flac", 401), ("00ab2b9cd0.flac", 409))
    assert decide(tracks, most + two).doubtful.keys() == {"t5"}
    assert not sure(tracks, files(("8f3a2b9cd0.flac", 401), ("00ab2b9cd0.flac", 77)))


def test_the_only_file_for_the_only_track_needs_no_name() -> None:
    """Its length is enough, unless its name says that it is something else."""
    (track,) = album(("Alpha", 200))
    assert sure([track], files(("8f3a2b9cd0.flac", 201))) == {"t1": "8f3a2b9cd0.flac"}
    assert not sure([track], files(("8f3a2b9cd0.flac", 207)))
    assert decide([track], files(("Alpha (Live).flac", 200))).doubtful.keys() == {"t1"}
    assert decide([track], files(("Omega.flac", 200))).doubtful.keys() == {"t1"}


def test_without_a_length_in_the_catalog_only_the_title_is_sure() -> None:
    """A number or a likeness could be anything then; the same title is not."""
    tracks = album(("Alpha", None), ("Beta", None), ("Gamma", None))
    named = files(("01 Alpha.flac", 500), ("02.flac", 240), ("Gama.flac", 300))
    decided = decide(tracks, named)
    assert decided.sure.keys() == {"t1"}
    assert "t2" in decided.doubtful


def test_a_title_mistyped_goes_to_the_nearest() -> None:
    """A typing error is the same title if the length agrees, and only the nearest title's."""
    tracks = album(("Garden of the North", 200), ("Garden of the South", 203), ("Other", 90))
    offered = files(("Gardn of the North.flac", 201), ("Garden of the South.flac", 202))
    assert sure(tracks, offered) == {
        "t1": "Gardn of the North.flac", "t2": "Garden of the South.flac",
    }  # fmt: skip


def test_numbers_over_all_discs() -> None:
    """01 to 04 of two discs with two tracks each are the running numbers."""
    tracks = album(("A", 100), ("B", 101), ("C", 102), ("D", 103), per_disc=2)
    offered = files(*((f"0{n}.flac", 99.0 + n) for n in (1, 2, 3, 4)))
    assert sure(tracks, offered) == {f"t{n}": f"0{n}.flac" for n in (1, 2, 3, 4)}


def test_a_wrong_mapping_decides_nothing() -> None:
    """Torrentino's opinion is weighed last."""
    tracks = album(("Alpha", 200), ("Beta", 201))
    offered = [
        replace(one, mapped={number: 1.0})
        for one, number in zip(
            files(("01 Alpha.flac", 200), ("02 Beta.flac", 201)), (2, 1), strict=True
        )
    ]
    assert sure(tracks, offered) == {"t1": "01 Alpha.flac", "t2": "02 Beta.flac"}


def test_tags_name_what_the_path_does_not() -> None:
    """Title and number of the tags count like those of the name; if they differ, neither number."""
    tracks = album(("Alpha", 200), ("Beta", 201), ("Alpha", 202))
    tagged = [Offered(name="8f3a2b9cd0.ogg", size_bytes=1, duration_s=201, title="Beta", number=2)]
    assert sure(tracks, tagged) == {"t2": "8f3a2b9cd0.ogg"}
    wrong = [Offered(name="01.ogg", size_bytes=1, duration_s=201, title="Alpha", number=3)]
    assert decide(tracks, wrong).doubtful.keys() == {"t1", "t3"}


def test_parts_of_a_cue_sheet_are_assigned() -> None:
    """The parts of one big file are the tracks, by the sheet's titles, numbers and times."""
    sheet = 'FILE "A.wav" WAVE\n' + "".join(
        f'TRACK 0{n} AUDIO\nTITLE "{title}"\nINDEX 01 {at_m}:00:00\n'
        for n, (title, at_m) in enumerate([("Alpha", "00"), ("Beta", "04"), ("Gamma", "09")], 1)
    )
    found = parts(
        parse(sheet.encode()), [Offered(name="R/A.flac", size_bytes=99, duration_s=720.0)]
    )
    tracks = album(("Alpha", 241), ("Beta", 299), ("Gamma", 181), ("Delta", 180))
    assert sure(tracks, found) == {f"t{n}": f"R/A.flac#0{n}" for n in (1, 2, 3)}


def test_names_tell_what_to_measure_first() -> None:
    """Unmeasured files are sure by name for now; asked again until nothing is left to measure."""
    tracks = album(*ALBUM)
    offered = files(
        ("01 Alpha.flac", None), ("03 Gamma.flac", None), ("04 Delta.flac", None), ("x.nfo", None)
    )
    lengths = {"01 Alpha.flac": 200.0, "03 Gamma.flac": 180.0, "04 Delta.flac": 300.0}
    decided = decide(tracks, offered, {"t3"})
    assert [one.name for one in to_measure(decided, offered)] == ["03 Gamma.flac"]
    rounds = 0
    while asked := to_measure(decided, offered):
        names = {one.name for one in asked}
        offered = [
            replace(one, duration_s=lengths[one.name]) if one.name in names else one
            for one in offered
        ]
        decided = decide(tracks, offered, {"t3", "t4"})
        rounds += 1
    assert {track: one.name for track, one in decided.sure.items()} == {
        "t3": "04 Delta.flac", "t4": "03 Gamma.flac",
    }  # fmt: skip
    assert rounds == 2


@pytest.mark.parametrize("tracks", [0, 1, 3])
def test_no_files_are_no_trouble(tracks: int) -> None:
    """Where nothing is offered, everything is missing."""
    wanted = album(*ALBUM[:tracks])
    assert decide(wanted, []).missing == {track.id for track in wanted}
    assert not decide([], files(("01 Alpha.flac", 1))).sure


# --- generated albums: MATCHING_EXAMPLES=5000 searches that many others, at random

_EXAMPLES = int(os.environ.get("MATCHING_EXAMPLES", "150"))
_SEARCH = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="MATCHING_EXAMPLES" not in os.environ,
)

_LETTERS = st.characters(categories=("Lu", "Ll", "Lo"), max_codepoint=0x9FFF)
_OWN_TITLES = st.lists(st.text(_LETTERS, min_size=2, max_size=12), max_size=12)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    count = draw(st.integers(1, 12))
    return Recipe(
        tracks=count,
        discs=draw(st.sampled_from([1, 1, 2])) if count > 3 else 1,
        titles=draw(st.sampled_from(TITLES)),
        lengths=draw(st.sampled_from(LENGTHS)),
        scheme=draw(st.sampled_from(SCHEMES)),
        disc_folders=draw(st.booleans()),
        lie=draw(st.sampled_from(["none", *LIES])),
        mapping=draw(st.sampled_from(MAPPINGS)),
        extras=tuple(draw(st.lists(st.sampled_from(EXTRAS), max_size=3))),
        lacks=frozenset(draw(st.lists(st.integers(0, count - 1), max_size=3))),
        doubled=draw(st.booleans()),
        off_s=draw(st.sampled_from([0.0, 0.5, 2.0])),
        catalog_lengths=draw(st.sampled_from([True, True, True, False])),
        typed_badly=draw(st.sampled_from([False, False, True])),
        seed=draw(st.integers(0, 2**32)),
        own_titles=draw(st.sampled_from([()]) | _OWN_TITLES),
        beside=draw(st.sampled_from([None, None, *BESIDE])),
        added=draw(st.sampled_from(["", "", *ADDED])),
        discography=draw(st.sampled_from([False, False, True])),
    )


def wrong_in(decided: Assignment, torrent: Torrent) -> dict[str, str]:
    return {
        track: one.name for track, one in decided.sure.items() if torrent.truth[one.name] != track
    }


def check_form(decided: Assignment, torrent: Torrent) -> None:
    ids = [track.id for track in torrent.tracks]
    assert sorted([*decided.sure, *decided.doubtful, *decided.missing]) == sorted(ids)
    names = [one.name for one in decided.sure.values()]
    assert len(names) == len(set(names))
    lengths = {track.id: track.duration_ms for track in torrent.tracks}
    for track, one in decided.sure.items():
        length_ms = lengths[track]
        if length_ms is not None and one.duration_s is not None:
            assert abs(length_ms / 1000 - one.duration_s) <= TOLERANCE_S


def check_truth(decided: Assignment, torrent: Torrent, *, measured: bool) -> None:
    """No track has another's audio when lengths or titles tell them apart, or no name lies."""
    wrong = wrong_in(decided, torrent)
    if torrent.lengths_tell and measured:
        assert not wrong, "lengths tell"
    if torrent.titles_tell:
        assert not wrong, "titles tell"
    if torrent.named and not torrent.names_lie:
        assert not wrong, "no name lies"
    if torrent.lengths_tell and torrent.titles_tell and measured:
        assert not decided.doubtful, "lengths and titles tell"
        assert decided.sure.keys() == torrent.present


@settings(_SEARCH, max_examples=_EXAMPLES)
@given(recipes(), st.randoms(use_true_random=False))
def test_no_track_gets_anothers_audio(recipe: Recipe, shuffled: random.Random) -> None:
    """Where lengths or titles tell the files apart, what is sure is true, measured or not."""
    torrent = build(recipe)
    ids = [track.id for track in torrent.tracks]
    event(f"lengths tell {torrent.lengths_tell}, titles tell {torrent.titles_tell}")
    for measured, offered in ((False, torrent.unmeasured()), (True, torrent.offered)):
        decided = decide(torrent.tracks, offered, name=NAME)
        check_form(decided, torrent)
        check_truth(decided, torrent, measured=measured)
    tracks, turned = list(torrent.tracks), list(torrent.offered)
    shuffled.shuffle(tracks)
    shuffled.shuffle(turned)
    again = decide(tracks, turned, ids[: len(ids) // 2], NAME)
    assert again.sure == {
        track: one for track, one in decided.sure.items() if track in ids[: len(ids) // 2]
    }
    assert again.doubtful == {
        track: doubt for track, doubt in decided.doubtful.items() if track in again.doubtful
    }


@settings(_SEARCH, max_examples=_EXAMPLES // 4)
@given(recipes())
def test_measuring_what_is_asked_for_ends(recipe: Recipe) -> None:
    """Asked again with each length that was wanted, it ends with nothing sure by name alone."""
    torrent = build(recipe)
    lengths = {one.name: one.duration_s for one in torrent.offered}
    offered = torrent.unmeasured()
    for _ in range(len(offered) + 1):
        decided = decide(torrent.tracks, offered, name=NAME)
        names = {one.name for one in to_measure(decided, offered)}
        if not names:
            break
        offered = [
            replace(one, duration_s=lengths[one.name]) if one.name in names else one
            for one in offered
        ]
    assert all(one.duration_s is not None for one in decided.sure.values())
    check_truth(decided, torrent, measured=False)
    if torrent.lengths_tell:
        assert not wrong_in(decided, torrent)
