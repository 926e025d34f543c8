"""CUE sheets: what is clear is split, what is ambiguous is refused with the reason."""

from __future__ import annotations

import pytest

from shared.matching.cue import MAX_BYTES, MAX_TRACKS, CueSheet, agreed, parse, parts
from shared.matching.model import Offered

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
        ('FILE "a.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:01:75', "not understood"),
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
        (["Other.flac"], 4500.0, "no files"),
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


def test_sheets_that_disagree_about_a_file_say_nothing() -> None:
    """Two sheets of one file count once if they agree, and not at all if they do not."""
    first = parts(parse(SHEET.encode()), offered("Image.flac"))
    moved = parts(parse(SHEET.replace("70:", "60:").encode()), offered("Image.flac"))
    other = parts(parse(SHEET.replace("Image", "B").encode()), offered("B.flac"))
    assert agreed({"a.cue": first, "b.cue": first}) == first
    assert agreed({"a.cue": first, "b.cue": moved, "c.cue": other}) == other
