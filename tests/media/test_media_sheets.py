"""CUE sheets that audio files have in themselves: a tag of any container, or a block of FLAC."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from services.local.audio import ToneCodec, make_tone
from shared.matching.cue import parse
from shared.media.flac_blocks import cue_sheet_block
from shared.media.probe import probe
from shared.media.tools import find_tools
from tests.support.audio import make_audio

SHEET = """FILE "a.wav" WAVE
  TRACK 01 AUDIO
    TITLE "Für; a=b"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "夜"
    INDEX 01 00:02:00
""".replace("\n", "\r\n")


async def tag_of(path: Path) -> str | None:
    return (await probe(path, find_tools(), {})).tags.get("cuesheet")


@pytest.mark.parametrize("codec", ["flac", "mp3", "opus", "vorbis"])
async def test_the_tag_is_read(codec: ToneCodec, tmp_path: Path) -> None:
    """In comments of Xiph's formats, and in ID3's text of one's own name."""
    path = tmp_path / "a"
    tags = {"CUESHEET": SHEET, "TITLE": "Whole"}
    make_tone(path, seconds=3, codec=codec, frequency=440, tools=find_tools(), tags=tags)
    assert await tag_of(path) == SHEET
    tracks = parse(SHEET.encode()).files[0].tracks
    assert [track.title for track in tracks] == ["Für; a=b", "夜"]


async def test_the_tag_of_an_mp4_is_read(tmp_path: Path) -> None:
    """As iTunes' own names are written."""
    path = tmp_path / "a.m4a"
    tags = {"title": "Whole"}
    make_tone(path, seconds=3, codec="aac", frequency=440, tools=find_tools(), tags=tags)
    path.write_bytes(with_freeform(path.read_bytes(), SHEET.encode()))
    assert await tag_of(path) == SHEET


def with_freeform(mp4: bytes, value: bytes) -> bytes:
    """The file, whose index is at its end, with one more atom in its list of tags."""
    names = atom(b"mean", bytes(4) + b"com.apple.iTunes") + atom(b"name", bytes(4) + b"CUESHEET")
    added = atom(b"----", names + atom(b"data", struct.pack(">II", 1, 0) + value))
    made = bytearray(mp4)
    at = mp4.rfind(b"ilst") - 4
    behind = at + int.from_bytes(mp4[at : at + 4], "big")
    made[behind:behind] = added
    for name in (b"ilst", b"meta", b"udta", b"moov"):
        place = mp4.rfind(name, 0, at + 8) - 4
        size = int.from_bytes(mp4[place : place + 4], "big") + len(added)
        made[place : place + 4] = size.to_bytes(4, "big")
    return bytes(made)


def atom(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


async def test_a_long_tag_is_cut(tmp_path: Path) -> None:
    """What is longer than a sheet may be is not kept."""
    path = tmp_path / "a"
    tags = {"CUESHEET": SHEET, "TITLE": "t" * 1000}
    make_tone(path, seconds=1, codec="flac", frequency=440, tools=find_tools(), tags=tags)
    assert (await probe(path, find_tools(), {})).tags["title"] == "t" * 500


def with_block(flac: bytes, content: bytes, *, before: bytes = b"") -> bytes:
    head = b"\x05" + len(content).to_bytes(3, "big")
    return before + flac[:42] + head + content + flac[42:]


async def test_the_block_is_found(tmp_path: Path) -> None:
    """Behind other blocks, and behind tags of another format; the audio is as before."""
    flac = make_audio(tmp_path / "a.flac", seconds=1, cover=True).read_bytes()
    track = struct.pack(">QB12sB13sBQB3s", 0, 1, b"", 0, b"", 1, 0, 1, b"")
    lead_out = struct.pack(">QB12sB13sB", 44_100, 170, b"", 0, b"", 0)
    content = bytes(395) + b"\x02" + track + lead_out
    path = tmp_path / "b.flac"
    id3 = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
    for before in (b"", id3):
        path.write_bytes(with_block(flac, content, before=before))
        assert cue_sheet_block(path) == content
    assert (await probe(path, find_tools(), {})).duration_s == pytest.approx(1)


@pytest.mark.parametrize("length", [0, 3, 8, 41, 44, 60])
def test_a_file_that_ends_in_its_blocks_has_none(length: int, tmp_path: Path) -> None:
    """Nor has a file of another format, or one without the block."""
    flac = make_audio(tmp_path / "a.flac", seconds=1).read_bytes()
    path = tmp_path / "b.flac"
    path.write_bytes(flac)
    assert cue_sheet_block(path) is None
    path.write_bytes(flac[:length])
    assert cue_sheet_block(path) is None
    path.write_bytes(b"fLaC" + b"\x05\xff\xff\xff" + bytes(100))
    assert cue_sheet_block(path) is None
    assert cue_sheet_block(make_audio(tmp_path / "c", seconds=1, codec="mp3")) is None
