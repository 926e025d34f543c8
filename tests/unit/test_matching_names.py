"""What titles and paths say, in every style of writing them."""

from __future__ import annotations

import pytest

from shared.matching.names import read_names
from shared.matching.titles import Likeness, fold, likeness, title_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Don\u2019t Stop Me Now", "dont stop me now"),
        ("Für Elise", "FUR ELISE"),
        ("Ёлка", "елка"),
        ("Rock & Roll", "Rock and Roll"),
        ("Song (feat. Somebody)", "Song"),
        ("Song ft. Somebody", "Song"),
        ("Song - 2011 Remaster", "Song"),
        ("Song (Remastered 2009)", "Song"),
        ("song_2011_remaster".replace("_", " "), "Song"),
        ("Song [Bonus Track]", "Song [FLAC]"),
        ("Song (Album Version)", "Song (320 kbps)"),
        ("Song (Original Mix)", "Song"),
        ("Suite, Pt. II", "Suite part 2"),
        ("Part Two", "pt. 2"),
        ("Vol. 4", "Volume IV"),
        ("R.E.M.", "REM"),
        ("Song - Live at Home", "Song (live at home)"),
        ("\uff33\uff4f\uff4e\uff47", "song"),
        ("(Untitled)", "Untitled"),
    ],
)
def test_ways_of_writing_a_title_are_one(one: str, other: str) -> None:
    """Case, accents, punctuation, guests and editions do not tell titles apart."""
    assert likeness(title_of(one), title_of(other)) is Likeness.SAME


@pytest.mark.parametrize(
    ("track", "file", "expected"),
    [
        ("Song", "Song (Live)", Likeness.OTHER_RECORDING),
        ("Song", "Song - Acoustic Version", Likeness.OTHER_RECORDING),
        ("Song", "Song (Somebody Remix)", Likeness.OTHER_RECORDING),
        ("Song", "Song [Instrumental]", Likeness.OTHER_RECORDING),
        ("Song", "Song (Demo)", Likeness.OTHER_RECORDING),
        ("Песня", "Песня (Live)", Likeness.OTHER_RECORDING),
        ("Gruppa Krovi", "Группа крови (Live)", Likeness.OTHER_RECORDING),
        ("Song (Live)", "Song", Likeness.SIMILAR),
        ("Song, Pt. 1", "Song, Pt. 2", Likeness.OTHER_TITLE),
        ("Symphony No. 5", "Symphony No. 6", Likeness.OTHER_TITLE),
        ("Suite A", "Suite B", Likeness.OTHER_TITLE),
        ("Improvisation 3", "Improvisation", Likeness.OTHER_TITLE),
        ("がく", "かく", Likeness.OTHER_TITLE),
        ("Gruppa Krovi", "Группа крови", Likeness.UNKNOWN),
        ("Garden of the North", "Gardn of the North", Likeness.NEAR),
        ("Song (From the Film)", "Song", Likeness.SIMILAR),
        ("Alpha", "Omega", Likeness.OTHER_TITLE),
        ("Song", "Song (Inst.)", Likeness.OTHER_RECORDING),
        ("Song", "Song (Off Vocal)", Likeness.OTHER_RECORDING),
        ("Song", "Song - Off Vocal Version", Likeness.OTHER_RECORDING),
        ("Song", "Song (Backing Track)", Likeness.OTHER_RECORDING),
        ("Song", "Song (Acapella)", Likeness.OTHER_RECORDING),
        ("Song", "Song (Clean)", Likeness.OTHER_RECORDING),
        ("Song", "Song (Explicit)", Likeness.SAME),
        ("Song", "Song (Stereo)", Likeness.SAME),
        ("Song", "Song (Mono)", Likeness.OTHER_RECORDING),
        ("Song", "Song (5.1 Mix)", Likeness.OTHER_RECORDING),
        ("Song", "Song (Somebody's Version)", Likeness.OTHER_RECORDING),
        ("Песня", "Песня (Минус)", Likeness.OTHER_RECORDING),
    ],
)
def test_what_tells_recordings_apart_stays(track: str, file: str, expected: Likeness) -> None:
    """Versions, parts and numbers name another recording, whatever else agrees."""
    assert likeness(title_of(track), title_of(file)) is expected


def test_words_that_mark_versions_may_be_titles() -> None:
    """ "Live Forever" is no live recording: only brackets and dashes mark."""
    for title in ("Live Forever", "Remix to Ignition", "Take Five", "Cover Me"):
        assert not title_of(title).marks
    assert title_of("Live Forever (Live)").marks == {"live"}


def test_a_title_of_punctuation_keeps_it() -> None:
    """ "???" and "!!!" are two titles."""
    assert fold("???") != fold("!!!")
    assert fold("???")


def test_marks_of_the_whole_album_need_no_repeating() -> None:
    """On an album where all is "(Live)", a file without it is the same recording."""
    usual = frozenset({"live"})
    assert likeness(title_of("Song (Live)"), title_of("Song"), usual=usual) is Likeness.SAME


@pytest.mark.parametrize(
    ("path", "disc", "number", "title"),
    [
        ("CD2/03 - The Artist - Some Title.flac", 2, 3, "some title"),
        ("Album (Disc 1)/07. Some Title.mp3", 1, 7, "some title"),
        ("203 Some Title.mp3", 2, 3, "some title"),
        ("2-03. Some Title.mp3", 2, 3, "some title"),
        ("CD2-03 Some Title.mp3", 2, 3, "some title"),
        ("d1t05 Some Title.mp3", 1, 5, "some title"),
        ("01 Some Title.ogg", None, 1, "some title"),
        ("[05] Some Title.mp3", None, 5, "some title"),
        ("Track 05 - Some Title.mp3", None, 5, "some title"),
        ("The Artist - An Album - 05 - Some Title.flac", None, 5, "some title"),
        ("The Artist - 05. Some Title.flac", None, 5, "some title"),
        ("04-the_artist-some_title.mp3", None, 4, "some title"),
        ("04.Some.Title.mp3", None, 4, "some title"),
        ("Some Title - The Artist.mp3", None, None, "some title"),
        ("05 - [The Artist] Some Title [320 kbps] (2004).mp3", None, 5, "some title"),
        ("07 - Осень.mp3", None, 7, "осень"),
        ("１２　曲.flac", None, 12, "曲"),  # noqa: RUF001 as such names are
        ("01. 99 Luftballons.flac", None, 1, "99 luftballons"),
        ("01-99_luftballons.mp3", None, None, "99 luftballons"),
        ("99 Luftballons.mp3", None, None, "99 luftballons"),
        ("1979.mp3", None, None, "1979"),
        ("22 - 2011 Remaster.mp3", None, None, "22"),
        ("22.mp3", None, None, "22"),
        ("03 Semi-Charmed Life.mp3", None, 3, "semi charmed life"),
        ("05 - Hello - Goodbye.mp3", None, 5, "hello goodbye"),
        ("The 2CD Set/05 x y.mp3", None, 5, "x y"),
        ("The Artist - Some Title.flac.converted", None, None, "some title"),
    ],
)
def test_a_path_is_read(path: str, disc: int | None, number: int | None, title: str) -> None:
    """Disc, number and title are found in the ways that people name files."""
    (named,) = read_names([path], {"The Artist"})
    assert title in {
        reading.title.core for reading in named.readings if reading.at_most is Likeness.SAME
    }
    if number is not None:
        assert (named.disc, named.number) == (disc, number)


def test_numbers_alone_are_no_titles() -> None:
    """ "Track 05.flac" and "05.flac" among others say only the number."""
    for pattern in ("R/Track 0{}.flac", "R/0{}.flac", "R/1-0{}.flac", "R/Some Album - 0{}.flac"):
        named = read_names([pattern.format(number) for number in (1, 2, 3)])
        assert [one.number for one in named] == [1, 2, 3]
        assert not any(
            reading.at_most is Likeness.SAME for one in named for reading in one.readings
        )


def test_what_all_names_begin_with_is_noise() -> None:
    """Artist and album before the numbers of all files, or between, are no part of the titles."""
    for pattern in ("Pink - Wall 0{} T{}x", "0{}-pink_wall-T{}x-grp", "0{} - Pink Wall - T{}x"):
        named = read_names([f"R/{pattern.format(n, n)}.mp3" for n in (1, 2, 3, 4)])
        assert [one.number for one in named] == [1, 2, 3, 4]
        for number, one in enumerate(named, start=1):
            assert f"t{number}x" in {reading.title.core for reading in one.readings}


def test_what_all_names_begin_with_may_be_the_title() -> None:
    """ "Suite, Pt. 6" among its parts is read as a title as well."""
    named = read_names([f"R/Suite, Pt. {number}.flac" for number in (1, 2, 6)])
    assert "suite part 6" in {reading.title.core for reading in named[2].readings}


def test_sides_of_a_record_are_one_running_number() -> None:
    """A1, A2, B1 are 1, 2, 3; a name that only looks like it stays a title."""
    named = read_names(["A1 One.flac", "A2. Two.flac", "B1 Three.flac"])
    assert [one.number for one in named] == [1, 2, 3]
    (alone,) = read_names(["B12 Song.flac"])
    assert alone.number is None
    assert "b12 song" in {reading.title.core for reading in alone.readings}


_STYLES = [
    *("010{} T{}x", "T0{} T{}x", "T{}x 0{}", "T{}x (0{})", "T{}x (0{})", "ZT00{}-T{}x"),
    *("Trk 0{} - T{}x", "T{}x_0{}", "Artist - T{}x - 0{}", "[0{}] T{}x", "0{}. T{}x [kJQP7kiw5Fk]"),
]


@pytest.mark.parametrize("style", _STYLES)
@pytest.mark.parametrize("folder", ["", "R/", "R/CD1/"])
def test_a_style_of_numbers_is_proven_by_all_names(style: str, folder: str) -> None:
    """A number that may be part of a title is none where each name of the folder has another."""
    named = read_names([f"{folder}{style.format(n, n)}.mp3" for n in (1, 2, 3, 4)], {"Artist"})
    assert [one.number for one in named] == [1, 2, 3, 4]
    for number, one in enumerate(named, start=1):
        assert f"t{number}x" in {reading.title.core for reading in one.readings}


def test_a_style_of_numbers_holds_within_a_folder() -> None:
    """Each disc, and each format, has its own style."""
    named = read_names(
        [f"R/CD1/Song {'abc'[n - 1]} 0{n}.mp3" for n in (1, 2, 3)]
        + [f"R/CD2/T0{n} Song {'abc'[n - 1]}.mp3" for n in (1, 2, 3)]
    )
    assert [(one.disc, one.number) for one in named] == [(d, n) for d in (1, 2) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "names",
    [
        ["1999 Party", "2001 Odyssey", "1984 Doublethink"],
        ["U2 - One", "U2 - Two", "U2 - Three"],
        ["MI5 Theme", "Another Song", "Third Song"],
        ["Blink182 Alpha", "Blink182 Beta", "Blink182 Gamma"],
        ["Route 66", "Song 2", "Summer of 69"],
        ["A Forest", "A Day in the Life", "I Will Survive"],
    ],
)
def test_what_only_looks_like_a_number_stays_a_title(names: list[str]) -> None:
    """Years, bands and titles with numbers are no discs and no places."""
    named = read_names([f"R/{name}.mp3" for name in names])
    assert [one.number for one in named] == [None] * 3
    assert [one.disc for one in named] == [None] * 3


def test_a_number_at_the_end_may_be_of_the_title() -> None:
    """ "Improvisation 2" is itself first, and "Improvisation" with less certainty."""
    named = read_names([f"R/{name}.mp3" for name in ("Ballad 1", "Improvisation 2", "Finale 3")])
    sure = [
        {reading.title.core for reading in one.readings if reading.at_most is Likeness.SAME}
        for one in named
    ]
    assert sure == [{"ballad 1"}, {"improvisation 2"}, {"finale 3"}]


@pytest.mark.parametrize(
    ("sides", "numbers"),
    [
        (["A", "B1", "B2"], [1, 2, 3]),
        (["A", "AA"], [1, 2]),
        (["A1", "A2", "AA1", "AA2"], [1, 2, 3, 4]),
        (["A1", "A2", "B"], [1, 2, 3]),
        # One is lacking: which number the others have is not known.
        (["A", "B2"], [None, None]),
    ],
)
def test_sides_with_one_track_have_no_number(sides: list[str], numbers: list[int | None]) -> None:
    """The order of sides is the order of tracks, where the record is whole."""
    named = read_names([f"R/{side} - Song {side}x.flac" for side in sides])
    assert [one.number for one in named] == numbers


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Song [kJQP7kiw5Fk].m4a", "song"),
        ("Song [a-b_c-d_e-f].opus", "song"),
        ("Song-kJQP7kiw5Fk.m4a", "song"),
        ("Song [Alternative].m4a", "song alternative"),
        ("Song [Instrument].m4a", "song instrument"),
        ("Semi-Charmed Life.m4a", "semi charmed life"),
        ("Song-extraordinary.m4a", "song extraordinary"),
        ("Some_Band-7_Rings-GRP.mp3", "some band 7 rings grp"),
        ("some_band-7_rings-grp.mp3", "some band 7 rings grp"),
    ],
)
def test_the_id_of_a_video_is_no_part_of_the_title(name: str, title: str) -> None:
    """Eleven mixed letters, digits and dashes are; a word of eleven letters is a word."""
    (named,) = read_names([name])
    assert title in {reading.title.core for reading in named.readings}


@pytest.mark.parametrize("name", ["04 Some Song", "04 Some Song.fl", "04 Some Song.fla"])
def test_a_name_that_lost_its_ending_is_read(name: str) -> None:
    """A client or a file system cuts long names."""
    (named,) = read_names([f"R/{name}"])
    assert named.number == 4
    assert "some song" in {reading.title.core for reading in named.readings}


def test_what_programs_call_files_is_no_title() -> None:
    """A code is no title, so nothing speaks against the file."""
    (named,) = read_names(["R/8f3a2b9cd0.flac"])
    assert not named.readings
    assert named.number is None


def test_a_part_of_a_file_has_only_the_disc() -> None:
    """The name of the whole file is no part's title."""
    (named,) = read_names(["Album/CD2/Album.flac#03"])
    assert (named.disc, named.number, named.readings) == (2, None, ())
