"""Images: which sheet is whose, and no song is cut by a sheet of another file."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate

import pytest

from shared.matching.assign import assign
from shared.matching.cue import CueSheet, parse
from shared.matching.cue_block import parse_block
from shared.matching.images import contradicted, doubted, split
from shared.matching.model import Assignment, Link, Offered
from shared.tracks import CatalogTrack

LENGTHS_S = (200, 240, 180)
RATE_HZ = 44_100


def catalog(lengths_s: Sequence[int | None] = LENGTHS_S) -> list[CatalogTrack]:
    return [
        CatalogTrack(
            id=f"t{number}",
            title=f"Song {'ABCDEFGH'[number - 1]}",
            artist="A",
            disc=1,
            number=number,
            duration_ms=None if length_s is None else length_s * 1000,
        )
        for number, length_s in enumerate(lengths_s, start=1)
    ]


def sheet(
    lengths_s: Sequence[int] = LENGTHS_S, *, name: str = "Album.wav", titles: bool = True
) -> CueSheet:
    lines = [f'FILE "{name}" WAVE']
    starts = accumulate(lengths_s, initial=0)
    for number, (start_s, _) in enumerate(zip(starts, lengths_s, strict=False), start=1):
        lines += [
            f"TRACK {number:02d} AUDIO",
            f"INDEX 01 {start_s // 60:02d}:{start_s % 60:02d}:00",
        ]
        if titles:
            lines.insert(-1, f'TITLE "Song {"ABCDEFGH"[number - 1]}"')
    return parse("\n".join(lines).encode())


def image(name: str = "R/Album.flac", duration_s: float = sum(LENGTHS_S)) -> Offered:
    return Offered(name=name, size_bytes=900, duration_s=duration_s)


def decide(
    sheets: Mapping[str, CueSheet],
    *files: Offered,
    tracks: Sequence[CatalogTrack] | None = None,
    embedded: Mapping[str, Sequence[CueSheet]] | None = None,
) -> Assignment:
    """As the fetcher does: split, drop what is contradicted, assign, doubt."""
    known = catalog() if tracks is None else tracks
    parts = split(sheets, embedded or {}, files).parts
    others = contradicted(parts, known, tolerance_s=6)
    kept = [part for part in parts if part.file_name not in others]
    result = assign(known, [track.id for track in known], kept or list(files), tolerance_s=6)
    return doubted(result, kept, known, tolerance_s=6)


def sure(result: Assignment) -> dict[str, str]:
    return {track_id: part.name for track_id, part in result.sure.items()}


WHOLE = {f"t{n}": f"R/Album.flac#0{n}" for n in (1, 2, 3)}


@pytest.mark.parametrize("name", ["Album.wav", "CDImage.wav"])
@pytest.mark.parametrize("titles", [True, False])
def test_an_image_and_its_sheet_give_all_tracks(name: str, titles: bool) -> None:
    """Also where FILE names another file: the length of the last track shows that they belong."""
    assert sure(decide({"R/x.cue": sheet(name=name, titles=titles)}, image())) == WHOLE


@pytest.mark.parametrize("duration_s", [700.0, 500.0, 445.0])
def test_a_sheet_of_another_image_cuts_no_song(duration_s: float) -> None:
    """All lengths but the last are the sheet's own: an image of another length is another's."""
    other = sheet(name="CDImage.wav")
    result = decide({"R/x.cue": other}, image(duration_s=duration_s))
    assert not result.sure
    assert result.missing == {"t1", "t2", "t3"}


def test_a_named_image_of_another_length_waits_with_its_reason() -> None:
    """A hidden track behind the last, or another master: an administrator sees both lengths."""
    result = decide({"R/Album.cue": sheet()}, image(duration_s=700.0))
    assert not result.sure
    doubt = result.doubtful["t1"]
    assert doubt.reason == (
        "the last part is 260 s long, 80 s off the catalog:"
        " the CUE sheet may be that of another file"
    )
    assert doubt.candidates[0]["file"] == "R/Album.flac#01"
    assert doubt.candidates[0]["title_score"] == 100
    assert result.doubtful["t3"].candidates[0]["file"] == "R/Album.flac#03"
    assert not result.missing


def test_without_a_length_in_the_catalog_a_name_is_needed() -> None:
    """Nothing shows that a sheet of another name is the file's; its own name is enough."""
    tracks = catalog((200, 240, None))
    alone = decide({"R/x.cue": sheet(name="CDImage.wav")}, image(), tracks=tracks)
    assert not alone.sure
    assert "no length of the catalog shows" in alone.doubtful["t2"].reason
    assert sure(decide({"R/x.cue": sheet()}, image(), tracks=tracks)) == WHOLE


def test_a_bonus_track_at_the_end_is_no_contradiction() -> None:
    """The catalog's edition ends before it; the sheet's name says whose it is."""
    lengths_s = (*LENGTHS_S, 333)
    result = decide({"R/Album.cue": sheet(lengths_s)}, image(duration_s=sum(lengths_s)))
    assert sure(result) == WHOLE


def test_of_a_part_without_a_sure_end_the_catalog_has_to_know_the_length() -> None:
    """Else two songs could be one."""
    text = b'FILE "Album.wav" WAVE\n' + b"".join(
        b'TRACK %02d AUDIO\nTITLE "Song %s"\nINDEX 01 %s\n' % (number, letter, at)
        for number, letter, at in (
            (1, b"A", b"00:00:00"),
            (2, b"B", b"bad"),
            (3, b"C", b"07:20:00"),
        )
    )
    result = decide({"R/Album.cue": parse(text)}, image(), tracks=catalog((None, 240, 180)))
    assert sure(result) == {"t3": "R/Album.flac#03"}
    assert "does not say where the part ends" in result.doubtful["t1"].reason
    assert sure(decide({"R/Album.cue": parse(text)}, image())) == {"t3": "R/Album.flac#03"}


def test_each_sheet_finds_its_image() -> None:
    """What one sheet names clearly is not meant by the other, which names none."""
    other = sheet((100, 150), name="CDImage.wav")
    sheets = {"R/Album.cue": sheet(name="CDImage.wav"), "R/x.cue": other}
    found = split(sheets, {}, [image(), image("R/Bonus.flac", 250.0)])
    assert {(part.file_name, part.link) for part in found.parts} == {
        ("R/Album.flac", Link.NAMED), ("R/Bonus.flac", Link.ALONE),
    }  # fmt: skip
    assert not found.unused


def test_discs_in_folders_have_sheets_and_images_of_one_name() -> None:
    """A sheet means the files of its own folder only."""
    sheets = {f"R/CD{disc}/CDImage.cue": sheet(name="CDImage.wav") for disc in (1, 2)}
    found = split(sheets, {}, [image(f"R/CD{disc}/CDImage.ape") for disc in (1, 2)])
    assert [part.name for part in found.parts] == [
        f"R/CD{disc}/CDImage.ape#0{n}" for disc in (1, 2) for n in (1, 2, 3)
    ]


def test_why_a_sheet_is_not_used_is_told() -> None:
    """Two files that it may mean, and two sheets that contradict each other."""
    two = split({"R/x.cue": sheet(name="y.wav")}, {}, [image(), image("R/B.flac")])
    assert two.unused == {"R/x.cue": "2 files beside it can be 'y.wav'"}
    shifted = {"R/a.cue": sheet(), "R/b.cue": sheet((201, 239, 180))}
    assert set(split(shifted, {}, [image()]).unused.values()) == {
        "sheets of one file contradict each other"
    }


def test_a_sheet_in_the_file_is_that_of_the_file() -> None:
    """Whatever FILE says, and beside a sheet that names another time."""
    inside = {"R/Album.flac": [sheet(name="CDImage.wav")]}
    assert sure(decide({}, image(), embedded=inside)) == WHOLE
    wrong = {"R/Album.cue": sheet((150, 290, 180))}
    assert sure(decide(wrong, image(), embedded=inside)) == WHOLE
    per_track = {"R/Album.flac": [parse(b'FILE "1.wav" WAVE\nTRACK 01 AUDIO\nINDEX 01 00:00:00')]}
    assert "does not split" in split({}, per_track, [image()]).unused["R/Album.flac"]


def block(
    starts_s: Sequence[float], end_s: float, *, gap_s: float = 0.0, data: int | None = None
) -> bytes:
    """A CUESHEET block; each track's place is that of its gap."""
    head = bytes(128) + struct.pack(">Q", 88_200) + bytes([0x80]) + bytes(258)
    made = head + bytes([len(starts_s) + 1])
    for number, start_s in enumerate(starts_s, start=1):
        before = gap_s if start_s else 0.0
        flags = 0x80 if number == data else 0
        points = [(1, before)] if not before else [(0, 0.0), (1, before)]
        made += struct.pack(
            ">QB12sB13sB", round((start_s - before) * RATE_HZ), number, b"", flags, b"", len(points)
        )
        for point, at_s in points:
            made += struct.pack(">QB3s", round(at_s * RATE_HZ), point, b"")
    return made + struct.pack(">QB12sB13sB", round(end_s * RATE_HZ), 170, b"", 0, b"", 0)


def test_a_block_names_places_in_samples() -> None:
    """INDEX 01 counts from the track's place, which is that of the gap before it."""
    read = parse_block(block((0, 200, 440), 620, gap_s=2.5), RATE_HZ)
    assert [track.start_s for track in read.files[0].tracks] == [0.0, 200.0, 440.0]
    assert (read.files[0].tracks[0].end_s, read.length_s) == (200.0, 620.0)
    assert sure(decide({}, image(), embedded={"R/Album.flac": [read]})) == WHOLE
    with_data = parse_block(block((0, 200, 440), 620, data=3), RATE_HZ)
    assert [track.number for track in with_data.files[0].tracks] == [1, 2]


def test_a_block_of_another_file_is_not_used() -> None:
    """It says how long its file is: a file that was cut or joined later has another length."""
    read = parse_block(block((0, 200, 440), 620), RATE_HZ)
    found = split({}, {"R/Album.flac": [read]}, [image(duration_s=640.0)])
    assert found.unused == {"R/Album.flac": "it is for a file of 620 s, not of 640 s"}


@pytest.mark.parametrize("cut_at", [0, 395, 396, 400, 470])
def test_a_block_that_ends_early_is_refused(cut_at: int) -> None:
    """Bytes that are not there are no tracks."""
    with pytest.raises(ValueError, match=r"without tracks|ends before|no INDEX|no audio"):
        parse_block(block((0, 200, 440), 620)[:cut_at], RATE_HZ)


def test_a_tag_and_a_block_that_agree_are_one_sheet() -> None:
    """The block has the samples, the tag the titles."""
    inside = {"R/Album.flac": [parse_block(block((0, 200, 440), 620), RATE_HZ), sheet()]}
    found = split({}, inside, [image()])
    assert [part.title for part in found.parts] == ["Song A", "Song B", "Song C"]
