"""Which files the pipeline is told to place, and what looks like an album."""

from __future__ import annotations

import pytest

from services.poller import file_choice
from services.poller.file_choice import choose, is_audio, only_albums, pipeline_format
from shared.matching.names import read_names
from shared.matching.titles import Likeness, Title, likeness
from shared.tracks import CatalogTrack


def track(title: str, number: int | None = None, disc: int | None = 1) -> CatalogTrack:
    return CatalogTrack(id=title, title=title, number=number, disc=disc)


def mapped(path: str, number: int, confidence: float = 0.9) -> dict[str, object]:
    return {"path": path, "item_id": f"track-{number}", "confidence": confidence}


ALBUM = [
    "R/01 - Love Me Do.flac",
    "R/02 - Something Else.flac",
    "R/03 - Intro.flac",
    "R/cover.jpg",
    "R/R.log",
]
AUDIO = ALBUM[:3]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([track("Something Else", 2)], [ALBUM[1]]),
        ([track("Intro", 3), track("Love Me Do", 1)], [ALBUM[0], ALBUM[2]]),
        # Numbered as in another edition, but called so.
        ([track("Something  élse")], [ALBUM[1]]),
        # "Love" is no "Love Me Do", and number 5 is none of them: all, and lengths will tell.
        ([track("Love", 5)], AUDIO),
        ([track("Love Me Do", 1), track("Hidden", 9)], AUDIO),
        ([], AUDIO),
    ],
)
def test_exactly_what_is_wanted_or_all(wanted: list[CatalogTrack], chosen: list[str]) -> None:
    """One file a track where the names tell for each; else every piece of audio, nothing beside."""
    assert choose(wanted, ALBUM, []) == chosen


def test_numbers_alone_tell_by_disc() -> None:
    """Two discs with the same numbers: the folder says which, also against Torrentino's mapping."""
    paths = [f"R/CD{disc}/{n:02}.mp3" for disc in (1, 2) for n in (1, 2)]
    both = [mapped("R/CD1/02.mp3", 2), mapped("R/CD2/02.mp3", 2)]
    assert choose([track("A", 2, disc=2)], paths, both) == ["R/CD2/02.mp3"]
    assert choose([track("A", 2, disc=None)], paths, both) == paths
    dashed = ["R/1-02 B.mp3", "R/2-02 A.mp3", "R/202 A.mp3"]
    assert choose([track("B", 2, disc=1)], dashed, []) == ["R/1-02 B.mp3"]


def test_a_mapping_tells_where_names_do_not() -> None:
    """Only with confidence, and only where the names say nothing else."""
    paths = ["R/x1.flac", "R/x2.flac"]
    assert choose([track("A", 2)], paths, [mapped("R/x2.flac", 2)]) == ["R/x2.flac"]
    assert choose([track("A", 2)], paths, [mapped("R/x2.flac", 2, 0.5)]) == paths


def test_a_huge_torrent_is_bounded_to_what_is_most_like() -> None:
    """Two hundred files at most, and the ones called alike are among them."""
    paths = [f"R/{n:04} - Noise {n}.flac" for n in range(400)] + ["R/z/x - My Songg.flac"]
    chosen = choose([track("My Song", 7), track("Lost", 8)], paths, [])
    assert len(chosen) == 200
    assert "R/z/x - My Songg.flac" in chosen


def test_the_format_loses_least() -> None:
    """The pipeline always converts: lossless stays lossless, and M4A may be either."""
    assert pipeline_format(["a.mp3", "b.OGG"]) == "mp3"
    assert pipeline_format(["a.mp3", "b.flac"]) == "flac"
    assert pipeline_format(["a.m4a"]) == "flac"
    assert is_audio("R/a.FLAC")
    assert not is_audio("R/flac")


FILES = ["R/01.flac", "R/02.flac", "R/x.jpg"]


@pytest.mark.parametrize(
    ("candidates", "albums"),
    [
        ([("anything", FILES)], True),
        ([("anything", FILES[1:])], False),
        ([("X - The Album [FLAC]", None)], True),
        ([("x.thé_album.2001.FLAC", None)], True),
        ([("X - My Song [FLAC]", None)], False),
        ([("X - The Album - My Song", None)], False),
        ([("X - Another One", None)], False),
        ([("anything", FILES), ("X - My Song [FLAC]", None)], False),
        ([], False),
    ],
)
def test_only_albums(candidates: list[tuple[str, list[str] | None]], albums: bool) -> None:
    """Every candidate has several pieces of audio, or is called as the album and not the track."""
    assert only_albums(candidates, title="My Song", album="The Album") is albums


def test_a_typo_in_a_long_name_is_none() -> None:
    """Uploaders type; a short name has no room for it."""
    names = {"title": "My Song", "album": "Wonderful Evenings"}
    assert only_albums([("X - Wonderfull Evenings [FLAC]", None)], **names)
    assert not only_albums([("X - Hume", None)], title="My Song", album="Home")


def test_a_song_that_is_called_as_its_album_waits_for_a_person() -> None:
    """Names cannot tell it from the album."""
    assert not only_albums([("X - Home", None)], title="Home", album="Home")


def test_no_pair_of_all_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """F20: the work grows with the tracks and the files, not with their product."""
    compared = 0

    def counted(of_track: Title, of_file: Title) -> Likeness:
        nonlocal compared
        compared += 1
        return likeness(of_track, of_file)

    monkeypatch.setattr(file_choice, "likeness", counted)
    tracks = [track(f"{word} and {word}", None) for word in words(60)]
    paths = [f"R/{word} and {word}.flac" for word in words(2000)]
    choose(tracks, paths, [])
    assert len(tracks) <= compared < len(tracks) * len(paths) / 10


def words(count: int) -> list[str]:
    """Different words of letters."""
    letters = "bcdfghklmnprstvz"
    return [
        "".join(f"{letters[n >> shift & 15]}{'aeio'[n >> shift & 3]}" for shift in (0, 4, 8))
        for n in range(count)
    ]


def test_names_of_many_pieces_have_few_readings() -> None:
    """A name that is nothing but dashes is read in a few ways, not in as many as it has pieces."""
    name = " - ".join(words(60))
    [says] = read_names([f"R/{name}.flac"])
    assert len(says.readings) <= 8
