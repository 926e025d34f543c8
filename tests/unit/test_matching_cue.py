"""CUE sheets: what is clear is split, what is ambiguous is refused with the reason."""

from __future__ import annotations

import pytest

from shared.matching.cue import CueSheet, agreed, parse, parts
from shared.matching.cue_lines import MAX_BYTES, MAX_TRACKS
from shared.matching.model import Link, Offered

SHEET = """\
REM GENRE Rock
REM DISCNUMBER 2
PERFORMER "The Artist"
TITLE "The Album"
FILE "Image.wav" WAVE
  TRACK 01 AUDIO
    TITLE "One"
    PERFORMER "Someone"
    PREGAP 00:02:00
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "Two"
    FLAGS DCP
    INDEX 00 03:08:00
    INDEX 01 03:10:37
  TRACK 03 AUDIO
    INDEX 01 70:00:00
"""


def offered(*names: str, duration_s: float | None = 4500.0) -> list[Offered]:
    return [Offered(name=name, size_bytes=90_000_000, duration_s=duration_s) for name in names]


def test_a_sheet_is_read() -> None:
    """Titles, performers and times in frames of 1/75 s; a gap belongs to the track before."""
    sheet = parse(SHEET.encode())
    assert (sheet.title, sheet.performer, sheet.disc) == ("The Album", "The Artist", 2)
    (file,) = sheet.files
    assert file.name == "Image.wav"
    one, two, three = file.tracks
    assert (one.number, one.title, one.performer) == (1, "One", "Someone")
    assert one.start_s == 0.0
    assert one.end_s == pytest.approx(190 + 37 / 75)
    assert (two.start_s, two.end_s) == (one.end_s, 4200.0)
    assert (three.title, three.start_s, three.end_s) == (None, 4200.0, None)


@pytest.mark.parametrize(
    ("title", "encoding"),
    [
        ("Zażółć", "utf-8"), ("Zażółć", "utf-8-sig"), ("Zażółć", "utf-16"),
        ("Café élan, là-bas", "cp1252"), ("Über Ärger \u2013 schön", "cp1252"),
        ("Группа крови", "cp1251"), ("Ёлка", "cp1251"),
        ("さくらんぼ", "cp932"), ("夜に駆ける", "cp932"), ("桜の木になろう", "cp932"),
    ],
)  # fmt: skip
def test_encodings(title: str, encoding: str) -> None:
    """Whatever wrote the sheet, its titles are read."""
    sheet = parse(SHEET.replace('"One"', f'"{title}"').encode(encoding))
    assert sheet.files[0].tracks[0].title == title


def test_parts_have_places_and_lengths() -> None:
    """Each part knows where it lies; the last one ends with the file."""
    found = parts(parse(SHEET.encode()), offered("Album/Image.flac"))
    assert [part.name for part in found] == [f"Album/Image.flac#0{n}" for n in (1, 2, 3)]
    assert (found[0].number, found[0].disc, found[0].title) == (1, 2, "One")
    assert found[2].end_s is None
    assert [round(part.duration_s or 0, 2) for part in found] == [190.49, 4009.51, 300.0]
    assert sum(part.size_bytes for part in found) == pytest.approx(90_000_000, abs=3)


def test_of_a_file_that_is_not_measured_no_length_is_known() -> None:
    """A sheet's word is not a measure."""
    found = parts(parse(SHEET.encode()), offered("Image.wav", duration_s=None))
    assert [part.duration_s for part in found] == [None, None, None]
    assert found[0].end_s == found[1].start_s


def test_the_exact_name_goes_before_another_ending() -> None:
    """ "Image.wav" is meant where it is; else the only file of that stem."""
    found = parts(parse(SHEET.encode()), offered("image.wav", "Image.flac"))
    assert {part.name.partition("#")[0] for part in found} == {"image.wav"}


def test_several_files_of_several_tracks() -> None:
    """Sides of a record, each its own file, are each split."""
    text = (
        SHEET
        + 'FILE "C:\\rips\\Side B.wav" WAVE\n'
        + "".join(f"  TRACK 0{n} AUDIO\n    INDEX 01 0{n}:00:00\n" for n in (4, 5))
    )
    found = parts(parse(text.encode()), offered("Image.flac", "Side B.flac"))
    assert [part.number for part in found] == [1, 2, 3, 4, 5]
    assert found[3].name == "Side B.flac#04"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no track"),
        ("what is this", "no track"),
        ("TRACK 01 AUDIO\nINDEX 01 00:00:00", "not understood"),
        ('FILE "a.wav" WAVE\nTRACK 01 AUDIO\nTRACK 02 AUDIO', "no INDEX 01"),
        ('FILE "a.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:61:00', "not understood"),
        ('FILE "a.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:01:76', "not understood"),
        ('FILE "a.wav" WAVE\nTRACK 01 MODE1/2352\nINDEX 01 00:00:00', "no audio"),
        ('FILE "" WAVE', "without a name"),
        (SHEET.replace("70:00:00", "03:10:37"), "begins before"),
        (SHEET.replace("70:00:00", "02:00:00"), "begins before"),
    ],
)
def test_what_is_not_in_order_is_refused(text: str, reason: str) -> None:
    """A sheet with a gap in what it says is no basis to cut by."""
    with pytest.raises(ValueError, match=reason):
        parse(text.encode())


def test_sheets_are_bounded() -> None:
    """Neither their size nor their tracks go without end."""
    with pytest.raises(ValueError, match="bytes"):
        parse(b" " * (MAX_BYTES + 1))
    lines = [f"TRACK 01 AUDIO\nINDEX 01 {n}:00:00" for n in range(MAX_TRACKS + 1)]
    with pytest.raises(ValueError, match="more than"):
        parse("\n".join(['FILE "a" WAVE', *lines]).encode())


@pytest.mark.parametrize(
    ("names", "duration_s", "reason"),
    [
        (["Other.flac"], 4200.0, "no files"),
        (["Other.flac", "Another.flac"], 4500.0, "2 files"),
        (["Image.flac", "Image.mp3"], 4500.0, "2 files"),
        (["Image.flac"], 4199.0, "beyond the end"),
    ],
)
def test_what_does_not_fit_the_files_is_refused(
    names: list[str], duration_s: float, reason: str
) -> None:
    """No file, several, or one that is too short: nothing is cut."""
    with pytest.raises(ValueError, match=reason):
        parts(parse(SHEET.encode()), offered(*names, duration_s=duration_s))


def one_each() -> CueSheet:
    # The second track's gap is in the first one's file, as some programs write it.
    return parse(
        b'FILE "1.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:00:00\nTRACK 02 AUDIO\nINDEX 00 03:00:00\n'
        b'FILE "2.wav" WAVE\nINDEX 01 00:00:00\n'
    )


def test_a_file_for_each_track_is_not_split() -> None:
    """Such a sheet only describes what is there."""
    with pytest.raises(ValueError, match="nothing to split"):
        parts(one_each(), offered("1.wav", "2.wav"))


def sheet_of(*starts: str, name: str = "Album.wav") -> bytes:
    """A sheet with the times of INDEX 01, and of INDEX 00 before a comma."""
    lines = [f'FILE "{name}" WAVE']
    for number, start in enumerate(starts, start=1):
        *gap, at = start.split(",")
        lines += [f"TRACK {number:02d} AUDIO", *(f"INDEX 00 {one}" for one in gap)]
        lines += [f"INDEX 01 {at}"] if at else []
    return "\n".join(lines).encode()


def places(data: bytes) -> list[tuple[int, float, float | None, bool]]:
    (file,) = parse(data).files
    return [(track.number, track.start_s, track.end_s, track.end_sure) for track in file.tracks]


@pytest.mark.parametrize(
    ("written", "at_s"),
    [
        ("03:10:75", 191.0), ("03:59:75", 240.0), ("03:60:00", 240.0), ("1:02:03:15", 3723.2),
        ("01:02:03:15", 3723.2), ("100:00:00", 6000.0), ("0003:10:00", 190.0),
        ("03:10:00 ", 190.0), ("3:1:0", 181.0),
    ],
)  # fmt: skip
def test_times_are_read_as_programs_write_them(written: str, at_s: float) -> None:
    """Hours before the minutes, and the 75 frames of a program that rounds."""
    assert parse(sheet_of("00:00:00", written)).files[0].tracks[1].start_s == pytest.approx(at_s)


@pytest.mark.parametrize(
    "bad", ["05:61:00", "05:00:76", "5:00", "what", "", "0\u0665:00:00", "1:61:00:00", "-5:00:00"]
)
def test_one_bad_index_costs_one_track(bad: str) -> None:
    """The others are cut. Where the track before it ends, only its gap can tell."""
    starts = ["00:00:00", "04:00:00", bad, "12:00:00"]
    assert places(sheet_of(*starts)) == [
        (1, 0.0, 240.0, True), (2, 240.0, 720.0, False), (4, 720.0, None, True),
    ]  # fmt: skip
    starts[2] = f"08:00:00,{bad}"
    assert places(sheet_of(*starts)) == [
        (1, 0.0, 240.0, True), (2, 240.0, 480.0, True), (4, 720.0, None, True),
    ]  # fmt: skip


def test_one_index_out_of_order_costs_one_track() -> None:
    """The one without which all are in order; two tracks, where it may be either."""
    beyond = places(sheet_of("00:00:00", "04:00:00", "80:00:00", "12:00:00", "16:00:00"))
    assert [number for number, *_ in beyond] == [1, 2, 4, 5]
    either = places(sheet_of("00:00:00", "04:00:00", "03:00:00", "12:00:00", "16:00:00"))
    assert [number for number, *_ in either] == [1, 4, 5]
    twice = places(sheet_of("00:00:00", "04:00:00\nINDEX 01 05:00:00", "12:00:00", "16:00:00"))
    assert [number for number, *_ in twice] == [1, 3, 4]
    with pytest.raises(ValueError, match="track 4 begins before track 3 does"):
        parse(sheet_of("00:00:00", "04:00:00", "08:00:00", "00:00:00", "04:00:00", "08:00:00"))


def test_data_is_skipped() -> None:
    """A data track is no part, but the track before it ends where it begins, or with the file."""
    data = "\nTRACK {:02d} MODE1/2352\nINDEX 01 {}"
    text = sheet_of("00:00:00", "05:00:00").decode()
    for at, end_s in (("11:00:00", 660.0), ("14:00:00", None)):
        found = parts(
            parse((text + data.format(3, at)).encode()), offered("Album.flac", duration_s=700.0)
        )
        assert [(part.number, part.end_s) for part in found] == [(1, 300.0), (2, end_s)]
    first = text.replace("TRACK 01 AUDIO", "TRACK 01 MODE1/2352")
    with_three = parse((first + "\nTRACK 03 AUDIO\nINDEX 01 09:00:00").encode())
    assert [track.number for track in with_three.files[0].tracks] == [2, 3]
    without_index = parse((text + "\nTRACK 03 MODE2/2352").encode())
    assert [track.end_sure for track in without_index.files[0].tracks] == [True, True]


@pytest.mark.parametrize(
    ("title", "encoding"),
    [("上海", "cp932"), ("Ať", "cp1250"), ("Für", "cp850"), ("Мир", "cp1251")],
)
def test_numbers_and_times_are_ascii(title: str, encoding: str) -> None:
    """No encoding of the titles, known or not, keeps a sheet from being read."""
    sheet = parse(SHEET.replace('"One"', f'"{title}"').encode(encoding))
    assert [track.start_s for track in sheet.files[0].tracks] == pytest.approx([0, 190.49, 4200], 1)
    assert sheet.files[0].tracks[0].title in {title, None}


def test_a_line_s_blanks_and_separators_do_not_matter() -> None:
    """Only line ends of ASCII divide lines; blanks may be those of a page of the web."""
    text = SHEET.replace('"One"', '"One\u0085\u2028\x0bAnd"').replace("  TRACK", "\u00a0TRACK")
    tracks = parse(text.replace("\n", "\r").encode()).files[0].tracks
    assert len(tracks) == 3
    assert (tracks[0].title or "").startswith("One")


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("Be\u0301la.wav", "Béla.flac"), ("Béla.wav", "Be\u0301la.flac"), ("BÉLA.WAV", "béla.wav"),
    ],
)  # fmt: skip
def test_accents_in_names_may_be_characters_of_their_own(written: str, there: str) -> None:
    """macOS writes them so: the name is the same, and the other file is not meant."""
    sheet = parse(sheet_of("00:00:00", "05:00:00", name=written))
    found = parts(sheet, offered(f"A/{there}", "A/Other.flac"))
    assert {(part.file_name, part.link) for part in found} == {(f"A/{there}", Link.NAMED)}


@pytest.mark.parametrize("path", ["A/Album.cue", "A/Album.flac.cue", "A/ALBUM.CUE"])
def test_a_sheet_s_own_name_says_whose_it_is(path: str) -> None:
    """Where FILE names a file that is not there, as "CDImage.wav"."""
    sheet = parse(sheet_of("00:00:00", "05:00:00", name="CDImage.wav"))
    beside = offered("A/Album.flac", "A/Bonus.flac")
    assert {part.file_name for part in parts(sheet, beside, path=path)} == {"A/Album.flac"}
    with pytest.raises(ValueError, match="2 files"):
        parts(sheet, beside)


def test_a_file_without_a_usable_track_is_not_split() -> None:
    """The other file of the sheet is one track, and there is nothing to split in it."""
    lost = sheet_of("bad", "bad", name="A.wav").decode()
    whole = 'FILE "B.wav" WAVE\nTRACK {:02d} AUDIO\nINDEX 01 00:00:00\n'
    text = lost + "\n" + whole.format(3) + whole.format(4).replace("B", "C")
    with pytest.raises(ValueError, match="are lost"):
        parts(parse(text.encode()), offered("A.flac", "B.flac", "C.flac"))


def test_the_only_file_that_is_long_enough_is_meant() -> None:
    """One image and one sheet belong together, whatever the sheet says, beside short files."""
    sheet = parse(sheet_of("00:00:00", "05:00:00", name="CDImage.wav"))
    short = [Offered(name="A/Bonus.flac", size_bytes=9, duration_s=200.0)]
    found = parts(sheet, [*offered("A/Album.flac"), *short])
    assert {(part.file_name, part.link) for part in found} == {("A/Album.flac", Link.ALONE)}


def test_sheets_that_agree_within_a_frame_are_one() -> None:
    """Each track is taken from the sheet that says more of it."""
    image = offered("Album.flac")
    one = sheet_of("00:00:00", "05:00:00", "bad", "12:00:00")
    other = sheet_of("00:00:01", "04:59:74", "08:00:00", "12:00:01").replace(
        b"TRACK 02 AUDIO", b'TRACK 02 AUDIO\nTITLE "Two"'
    )
    found = agreed({"a.cue": parts(parse(one), image), "b.cue": parts(parse(other), image)})
    assert [part.number for part in found] == [1, 2, 3, 4]
    assert [(part.title, part.end_sure) for part in found][1] == ("Two", True)
    apart = sheet_of("00:00:00", "05:00:03", "08:00:00", "12:00:00")
    assert not agreed({"a.cue": parts(parse(other), image), "b.cue": parts(parse(apart), image)})


def test_the_sheet_that_is_linked_best_counts() -> None:
    """A sheet that is only alone in its folder does not contradict one that names the file."""
    image = offered("Album.flac")
    named = parts(parse(sheet_of("00:00:00", "05:00:00")), image)
    alone = parts(parse(sheet_of("00:00:00", "06:00:00", name="CDImage.wav")), image)
    assert agreed({"a.cue": alone, "b.cue": named}) == named


def test_sheets_that_disagree_about_a_file_say_nothing() -> None:
    """Two sheets of one file count once if they agree, and not at all if they do not."""
    first = parts(parse(SHEET.encode()), offered("Image.flac"))
    moved = parts(parse(SHEET.replace("70:", "60:").encode()), offered("Image.flac"))
    other = parts(parse(SHEET.replace("Image", "B").encode()), offered("B.flac"))
    assert agreed({"a.cue": first, "b.cue": first}) == first
    assert agreed({"a.cue": first, "b.cue": moved, "c.cue": other}) == other
