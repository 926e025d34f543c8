"""Which of several files with one name: qualifiers of folders and tags, layouts, copies."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.matching.assign import assign, to_compare
from shared.matching.copies import STEP_S, same_audio
from shared.matching.model import Assignment, Offered
from shared.tracks import CatalogTrack

SONGS = [("Alpha", 200.0), ("Beta", 240.0), ("Gamma", 300.0), ("Delta", 180.0)]


def album(songs: Sequence[tuple[str, float]] = SONGS) -> list[CatalogTrack]:
    return [
        CatalogTrack(
            id=f"t{number}",
            title=title,
            artist="The Artist",
            disc=1,
            number=number,
            duration_ms=round(length_s * 1000),
        )
        for number, (title, length_s) in enumerate(songs, start=1)
    ]


def in_folder(
    folder: str, ending: str = ".flac", *, size_bytes: int = 1000, off_s: float = 0.0, **more: Any
) -> list[Offered]:
    """The whole album in one folder."""
    return [
        Offered(
            name=f"{folder}0{number} {title}{ending}",
            size_bytes=size_bytes,
            duration_s=length_s + off_s,
            **more,
        )
        for number, (title, length_s) in enumerate(SONGS, start=1)
    ]


def decide(
    offered: Sequence[Offered],
    *,
    tracks: Sequence[CatalogTrack] | None = None,
    name: str | None = None,
) -> Assignment:
    tracks = album() if tracks is None else tracks
    ids = [track.id for track in tracks]
    return assign(tracks, ids, offered, tolerance_s=6.0, album=name)


def folders(decided: Assignment) -> set[str]:
    return {one.name.rpartition("/")[0] for one in decided.sure.values()}


@pytest.mark.parametrize(
    "folder",
    [
        *("Instrumentals", "Instrumental Versions", "Karaoke", "A Cappella", "Acapellas", "Live"),
        *("Demos", "Commentary", "Remixes", "Clean", "Clean Version", "Mono", "5.1", "Surround"),
        *("5.1 Surround Mix", "CD2 - Instrumental", "Off Vocal", "Минус", "Album (Instrumental)"),
        *("Bonus", "Bonus CD", "Sampler", "Singles", "Multichannel", "Album (Live)", "カラオケ"),
    ],
)
def test_a_folder_says_that_its_files_are_something_else(folder: str) -> None:
    """Whatever their size, format or channels: the files of the album itself are taken."""
    beside = in_folder(f"R/{folder}/", size_bytes=9000)
    decided = decide([*in_folder("R/Album/", ".mp3"), *beside])
    assert folders(decided) == {"R/Album"}
    assert len(decided.sure) == 4
    # Neither does the order of names decide.
    assert folders(decide([*in_folder("R/zz/", ".mp3"), *beside])) == {"R/zz"}


@pytest.mark.parametrize(
    "folder", ["Instrumentals", "Karaoke", "Live", "Mono", "5.1 Surround Mix", "Remixes"]
)
def test_what_a_folder_calls_another_recording_is_never_the_song(folder: str) -> None:
    """Alone in a torrent it is shown to an administrator, with numbers and titles as without."""
    for offered in (
        in_folder(f"R/{folder}/", off_s=2.0),
        [
            replace(one, name=f"R/{folder}/0{n}.flac")
            for n, one in enumerate(in_folder("", off_s=2.0), start=1)
        ],
    ):
        decided = decide(offered)
        assert not decided.sure
        assert decided.doubtful.keys() == {"t1", "t2", "t3", "t4"}


def test_bonus_and_samplers_have_what_the_album_lacks() -> None:
    """They are a second choice, no other recording."""
    offered = [*in_folder("R/")[:3], *in_folder("R/Bonus/")[3:]]
    assert len(decide(offered).sure) == 4


def test_the_album_may_be_what_the_word_says() -> None:
    """ "Live", "Demos" and "Karaoke" are names of albums too."""
    for name in ("Live", "The Remixes", "Artist Karaoke", "Live at the Pier"):
        decided = decide(in_folder(f"The Artist - {name} (2001)/"), name=name)
        assert len(decided.sure) == 4, name
    # Of the same torrent the plain album is another.
    assert not decide(in_folder("The Artist - Songs (Karaoke)/"), name="Songs").sure


def test_a_folder_that_lists_its_contents_marks_none_of_them() -> None:
    """ "(Mono & Stereo)": the folders below say which is which."""
    root = "The Artist - Songs (Mono & Stereo)"
    decided = decide(
        [*in_folder(f"{root}/Mono/", size_bytes=9000), *in_folder(f"{root}/Stereo/")], name="Songs"
    )
    assert folders(decided) == {f"{root}/Stereo"}


@pytest.mark.parametrize("name", ["01 Alpha.flac", "01.flac", "8f3a2b9cd0.flac", "Alpha.flac"])
@pytest.mark.parametrize("tag", ["Alpha (Instrumental)", "Alpha - Karaoke Version", "Alpha (Live)"])
def test_a_tag_that_names_another_recording_outweighs_the_name(name: str, tag: str) -> None:
    """A name without a qualifier says nothing of the recording."""
    one = Offered(name=name, size_bytes=1, duration_s=200.0, title=tag, number=1)
    decided = decide([one])
    assert not decided.sure
    assert decided.doubtful.keys() == {"t1"}
    plain = replace(one, name=f"x/{name}", title="Alpha")
    assert decide([one, plain]).sure["t1"] == plain
    # And neither does a plain tag make the song of a name that has the qualifier.
    marked = replace(one, name="01 Alpha (Instrumental).flac", title="Alpha")
    assert not decide([marked]).sure


def test_the_wanted_recording_is_found_by_its_folder_and_its_tag() -> None:
    """Where the catalog wants the instrumentals, the folder's word is what it asks for."""
    tracks = album([(f"{title} (Instrumental)", length_s) for title, length_s in SONGS])
    both = [*in_folder("R/"), *in_folder("R/Instrumentals/")]
    assert folders(decide(both, tracks=tracks)) == {"R/Instrumentals"}
    tagged = [
        replace(one, title=track.title) for one, track in zip(in_folder("x/"), tracks, strict=True)
    ]
    assert folders(decide([*in_folder("R/"), *tagged], tracks=tracks)) == {"x"}
    # The song itself has the same length, so a file that says nothing is not it.
    assert not decide(in_folder("R/"), tracks=tracks).sure


@pytest.mark.parametrize("other", [6, 8, 1])
def test_stereo_before_other_layouts(other: int) -> None:
    """The channels count before the format and the size."""
    decided = decide(
        [
            *in_folder("R/a/", channels=other, size_bytes=9000),
            *in_folder("R/b/", ".mp3", channels=2),
        ]
    )
    assert folders(decided) == {"R/b"}
    assert len(decided.sure) == 4


def test_the_catalog_may_ask_for_another_layout() -> None:
    """Of an album that is called so, the surround files are taken."""
    both = [*in_folder("R/a/", channels=6), *in_folder("R/b/", channels=2)]
    assert folders(decide(both, name="Songs (5.1 Surround)")) == {"R/a"}


def test_lossless_before_lossy_only_of_copies() -> None:
    """A lossless file of another length is another rip: the nearest length is taken."""
    assert folders(decide([*in_folder("R/FLAC/"), *in_folder("R/MP3/", ".mp3")])) == {"R/FLAC"}
    other = in_folder("R/FLAC/", off_s=1.5)
    assert folders(decide([*other, *in_folder("R/MP3/", ".mp3")])) == {"R/MP3"}
    hi_res = in_folder("R/24-96/", size_bytes=9000, sample_rate_hz=96_000)
    assert folders(decide([*hi_res, *in_folder("R/CD/", sample_rate_hz=44_100)])) == {"R/CD"}


def curve(seed: int, seconds: float = 60.0) -> list[float]:
    """The loudness of a song: beats under a slow tide."""
    made = random.Random(seed)
    steps = round(seconds / STEP_S)
    return [
        1000 + 800 * math.sin(at / (40 + seed)) + 600 * made.random() * (at % 20 < 6)
        for at in range(steps)
    ]


def with_voice(backing: Sequence[float]) -> list[float]:
    """The same with somebody singing half of the time."""
    return [
        math.hypot(value, 900 if at % 400 < 200 and at % 16 < 11 else 0)
        for at, value in enumerate(backing)
    ]


def coded(audio: Sequence[float], *, gain: float = 1.0, later: int = 0) -> list[float]:
    """A copy by a lossy encoder: a little off everywhere."""
    made = random.Random(9)
    return [0.0] * later + [value * gain * made.uniform(0.98, 1.02) for value in audio]


def test_audio_is_the_same_but_for_gain_and_shift() -> None:
    """A copy is; the backing track of the same song, another song, and silence are not."""
    song = with_voice(curve(1))
    for copy in (song, coded(song), coded(song, gain=0.4), coded(song, later=30)):
        assert same_audio(song, copy)
        assert same_audio(copy, song)
    for other in (curve(1), with_voice(curve(2)), [0.0] * len(song), song[:4], []):
        assert not same_audio(song, other)
        assert not same_audio(other, song)
    assert same_audio([0.0] * 400, [0.0] * 400)
    # One steady tone is as loud as another.
    assert not same_audio([1000.0] * 400, [1000.0] * 400)


def compared(offered: Sequence[Offered], heard: Mapping[str, Sequence[float]]) -> Assignment:
    """As in the fetcher-writer: what may decide is decoded, until nothing more may."""
    decided = decide(offered)
    while names := {one.name for one in to_compare(decided, offered)}:
        offered = [
            replace(one, loudness=heard[one.name]) if one.name in names else one for one in offered
        ]
        decided = decide(offered)
    return decided


def test_two_folders_that_say_nothing_are_compared_by_audio() -> None:
    """Copies need no administrator; where they differ, one of them may be the instrumental."""
    flac, mp3 = in_folder("R/Schallplatte/")[:1], in_folder("R/Walkman/", ".mp3")[:1]
    decided = decide([*flac, *mp3])
    assert decided.doubtful.keys() == {"t1"}
    assert {one.name for one in to_compare(decided, [*flac, *mp3])} == {flac[0].name, mp3[0].name}
    song = with_voice(curve(1))
    same = compared([*flac, *mp3], {flac[0].name: song, mp3[0].name: coded(song)})
    assert same.sure == {"t1": replace(flac[0], loudness=song)}
    other = compared([*flac, *mp3], {flac[0].name: curve(1), mp3[0].name: song})
    assert not other.sure
    assert "called so" in other.doubtful["t1"].reason
    assert {each["file"] for each in other.doubtful["t1"].candidates} == {
        flac[0].name,
        mp3[0].name,
    }


def test_size_decides_nothing() -> None:
    """The choice is the same whichever of the files is the larger."""
    for left, right in ((1, 9000), (9000, 1)):
        both = [
            *in_folder("R/x/", size_bytes=left),
            *in_folder("R/y/", size_bytes=right),
        ]
        assert decide(both).doubtful.keys() == {"t1", "t2", "t3", "t4"}


def test_the_evidence_says_what_marks_a_file() -> None:
    """An administrator reads why it was not taken."""
    (one, *_) = in_folder("R/Instrumentals/", channels=6, off_s=2.0)
    (candidate,) = decide([one]).doubtful["t1"].candidates
    assert "marked instrumental" in str(candidate["why"])
    assert "6 channels" in str(candidate["why"])
