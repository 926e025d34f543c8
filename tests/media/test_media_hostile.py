"""Files made to hurt: each is turned down as `corruption`, quickly, and nothing else happens."""

from __future__ import annotations

import asyncio
import os
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import ffmpeg
import pytest

from shared.errors import AttemptFailed, CorruptAudio
from shared.media import ffmpeg_process as child
from shared.media import probe
from shared.media.decode import command
from shared.media.formats import DEMUXERS
from shared.media.memory import LEAST_BYTES, MIB
from shared.media.tools import AudioTools, find_tools
from shared.media.verify import AudioFacts, verify
from tests.support import rare_formats
from tests.support.audio import cut, make_audio

QUICK_S = 20.0


async def check(path: Path, *, expected_ms: int | None = 8000) -> AudioFacts:
    """Verified within a time that no file may stretch."""
    async with asyncio.timeout(QUICK_S):
        return await verify(path, expected_ms=expected_ms, tolerance_s=6, tools=find_tools())


async def refused(path: Path, *, expected_ms: int | None = 8000) -> CorruptAudio:
    with pytest.raises(CorruptAudio) as caught:
        await check(path, expected_ms=expected_ms)
    return caught.value


def atom(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def nested_atoms(depth: int) -> bytes:
    """`moov` in `moov` in `moov`, without building each level again."""
    sizes = (struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))
    return atom(b"ftyp", b"M4A \0\0\0\0M4A ") + b"".join(sizes)


def many_samples() -> bytes:
    """An MP4 whose tables announce four thousand million samples in a few bytes."""
    table = atom(b"stsz", struct.pack(">III", 0, 0, 0xFFFFFFF0))
    table += atom(b"stts", struct.pack(">III", 0, 0xFFFFFFF0, 1))
    table += atom(b"stco", struct.pack(">II", 0, 0xFFFFFFF0))
    header = atom(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 44100, 1, 0, 0))
    handler = atom(b"hdlr", struct.pack(">II4sIIIB", 0, 0, b"soun", 0, 0, 0, 0))
    media = header + handler + atom(b"minf", atom(b"stbl", table))
    return atom(b"ftyp", b"M4A \0\0\0\0M4A ") + atom(b"moov", atom(b"trak", atom(b"mdia", media)))


def elsewhere() -> bytes:
    """An MP4 whose data are said to lie in another file."""
    url = atom(b"url ", struct.pack(">I", 0) + b"file:///etc/hostname\0")
    return many_samples() + atom(b"dref", struct.pack(">II", 0, 1) + url)


HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:1/x.aac\n#EXT-X-ENDLIST\n"
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"


@pytest.mark.parametrize(
    "content",
    [
        HLS,
        SDP,
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"fLaC" + b"\x04\xff\xff\xff" + b"\xff\xff\xff\xff" * 4,
        nested_atoms(100_000),
        many_samples(),
        elsewhere(),
        b"OggS\0\x02" + b"\xff" * 40,
        b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff",
    ],
    ids=["hls", "sdp", "concat", "id3", "flac", "nested", "samples", "dref", "ogg", "wav"],
)
async def test_crafted_file(content: bytes, tmp_path: Path) -> None:
    """Playlists in disguise, nested or endless structures: refused, not followed, not allocated."""
    path = tmp_path / "song.m4a"
    path.write_bytes(content + bytes(20_000))
    error = await refused(path)
    assert error.evidence["rule"] in ("not_audio", "codec_not_allowed", "decode_errors")


def dsf(*, block_bytes: int, channels: int = 2) -> bytes:
    content = bytearray(rare_formats.dsf(0.1, channels=channels))
    content[28 + 44 : 28 + 48] = struct.pack("<I", block_bytes)
    return bytes(content)


def ape(*, frames: int, blocks: int) -> bytes:
    """Its table of frames, and how many samples each has."""
    content = bytearray(rare_formats.ape(0.1))
    content[52 + 4 : 52 + 16] = struct.pack("<III", blocks, blocks, frames)
    content[52 - 36 : 52 - 32] = struct.pack("<I", 0xFFFFFFFC)
    return bytes(content)


def ebml(size: int) -> bytes:
    """A Matroska file whose only element has this size, and elements in elements."""
    head = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska"
    segment = b"\x18\x53\x80\x67\x01" + (size & (1 << 56) - 1).to_bytes(7, "big")
    tracks = (b"\x16\x54\xae\x6b\x01" + b"\xff" * 6 + b"\xfe") * 2000
    return head + segment + tracks


HUGE = struct.pack(">Q", (1 << 62) - 1)


@pytest.mark.parametrize(
    "content",
    [
        dsf(block_bytes=0x7FFFFFFF),
        dsf(block_bytes=0),
        ape(frames=0x3FFFFFFF, blocks=73_728),
        ape(frames=1, blocks=0x7FFFFFFF),
        ebml(1 << 55),
        b"FRM8" + HUGE + b"DSD " + b"PROP" + HUGE + b"SND " + b"CHNL" + HUGE,
        b"FORM\x7f\xff\xff\xffAIFFCOMM\x7f\xff\xff\xff" + bytes(40),
        b"FORM\x7f\xff\xff\xff8SVXBODY\x7f\xff\xff\xff",
        b"caff\0\1\0\0desc" + struct.pack(">Q", 32) + bytes(32) + b"pakt" + HUGE,
        b"TTA1\1\0\2\0\x10\0" + struct.pack("<II", 44_100, 0xFFFFFFFF) + bytes(4),
        b"MP+\x07" + struct.pack("<I", 0xFFFFFFFF) + bytes(20),
        b"MPCKSH\x10" + b"\xff" * 14 + b"ST\xff\xff\xff\xff\x7f",
        b"ajkg\x02" + b"\xff" * 64,
        b"tBaK\x01\xff\xff\xff" + b"\xff" * 64,
        b"wvpk\xf8\xff\xff\x7f\x10\x04" + b"\xff" * 64,
        b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + b"\xff" * 8 + b"wave" + b"\xff" * 64,
    ],
    ids=[
        *("dsf-block", "dsf-none", "ape-table", "ape-frame", "matroska", "dsdiff", "aiff", "8svx"),
        *("caf", "tta", "mpc7", "mpc8", "shorten", "tak", "wavpack", "w64"),
    ],
)
async def test_sizes_that_no_music_has(content: bytes, tmp_path: Path) -> None:
    """Tables, chunks and frames of gigabytes in a small file: refused within the least memory."""
    path = tmp_path / "song"
    path.write_bytes(content + bytes(20_000))
    tools = replace(find_tools(), memory_bytes=LEAST_BYTES)
    started = os.times()
    with pytest.raises(CorruptAudio) as caught:
        await verify(path, expected_ms=8000, tolerance_s=6, tools=tools)
    ended = os.times()
    assert caught.value.evidence["rule"] != "too_much_work"
    assert ended.children_user + ended.children_system - started.children_user < 5 + (
        started.children_system
    )


async def test_hours_of_silence_are_not_decoded(tmp_path: Path) -> None:
    """A small file that unfolds to hours, and says so, is refused before the decode."""
    path = tmp_path / "bomb.flac"
    silence = ffmpeg.input("anullsrc=r=8000:cl=mono:d=3600", f="lavfi")
    ffmpeg.run(silence.output(str(path), f="flac"), cmd=find_tools().ffmpeg, quiet=True)
    assert path.stat().st_size < 1_000_000
    error = await refused(path)
    assert (error.evidence["rule"], error.evidence["decoded_s"]) == ("wrong_length", None)


async def test_hours_of_frames_are_not_decoded(tmp_path: Path) -> None:
    """A raw AAC tells no length, but its frames can be counted."""
    one = tmp_path / "one.aac"
    silence = ffmpeg.input("anullsrc=r=44100:cl=mono:d=10", f="lavfi")
    ffmpeg.run(silence.output(str(one), f="adts"), cmd=find_tools().ffmpeg, quiet=True)
    path = tmp_path / "bomb.aac"
    path.write_bytes(one.read_bytes() * 2000)
    error = await refused(path)
    assert (error.evidence["rule"], error.evidence["decoded_s"]) == ("wrong_length", None)


async def test_hours_that_are_not_announced_are_decoded_in_part(tmp_path: Path) -> None:
    """A WAV out of a pipe tells no length: the decode ends a minute behind the catalog's."""
    path = tmp_path / "bomb.wav"
    whole = wave(channels=1, rate_hz=8000, bits=8, seconds=400)
    at = whole.index(b"data")
    path.write_bytes(whole[:4] + b"\xff" * 4 + whole[8 : at + 4] + b"\xff" * 4 + whole[at + 8 :])
    error = await refused(path)
    assert error.evidence["rule"] == "wrong_length"
    assert error.evidence["decoded_s"] == pytest.approx(69, abs=1)


def png(width: int, height: int) -> bytes:
    """A picture of one colour whose header is all that is small about it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    lines = zlib.compress(bytes(10_000_000), 9)
    head = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


async def test_a_cover_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    """The music below a picture of 30,000 by 30,000 pixels is judged by itself."""
    whole = make_audio(tmp_path / "song.flac", seconds=8).read_bytes()
    picture = png(30_000, 30_000)
    block = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">I", 0)
    block += struct.pack(">IIIII", 30_000, 30_000, 64, 0, len(picture)) + picture
    path = tmp_path / "cover.flac"
    # Behind the stream's own header, which is 42 bytes with the mark in front.
    path.write_bytes(
        whole[:4]
        + b"\x00"
        + whole[5:42]
        + b"\x06"
        + len(block).to_bytes(3, "big")
        + block
        + whole[42:]
    )
    assert (await check(path)).ext == "flac"


async def test_what_does_not_fit_into_the_memory_limit_is_corruption(
    tmp_path: Path,
) -> None:
    """A decoder that runs into its limit ends by itself; the file gets the blame."""
    path = make_audio(tmp_path / "song.flac", seconds=8)
    tools = replace(find_tools(), memory_bytes=8 * MIB)
    with pytest.raises(CorruptAudio) as caught:
        await verify(path, expected_ms=8000, tolerance_s=6, tools=tools)
    assert caught.value.evidence["rule"] in ("not_audio", "decode_errors", "too_much_memory")


def announcing(path: Path, samples: int) -> Path:
    """An ALAC file whose header announces packets of so many samples."""
    tone = ffmpeg.input("sine=d=8", f="lavfi")
    ffmpeg.run(tone.output(str(path), acodec="alac"), cmd=find_tools().ffmpeg, quiet=True)
    content = bytearray(path.read_bytes())
    # Size, name and version of the box in front of the number.
    at = content.index(b"\0\0\0\x24alac\0\0\0\0") + 12
    content[at : at + 4] = struct.pack(">I", samples)
    path.write_bytes(content)
    return path


async def test_packets_for_which_a_decoder_reserves_gigabytes(tmp_path: Path) -> None:
    """They are refused by what the file announces: 1.5 GB for a file of 0.2 MB, before that."""
    path = announcing(tmp_path / "bomb.m4a", 4096 * 4096)
    error = await refused(path)
    assert (error.evidence["rule"], error.evidence["decoded_s"]) == ("absurd", None)


def wave(*, channels: int, rate_hz: int, bits: int, seconds: float = 0.1) -> bytes:
    """A WAV file of silence with this header."""
    frame = channels * bits // 8
    data = bytes(int(rate_hz * seconds) * frame)
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * frame % 2**32, frame, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    ("channels", "rate_hz", "seconds"),
    [(60, 44_100, 0.1), (2, 2_000_000_000, 0.00001)],
    ids=["channels", "rate"],
)
async def test_numbers_that_no_music_has(
    channels: int, rate_hz: int, seconds: float, tmp_path: Path
) -> None:
    """Channels and rates by which memory is reserved."""
    path = tmp_path / "song.wav"
    path.write_bytes(wave(channels=channels, rate_hz=rate_hz, bits=16, seconds=seconds))
    assert (await refused(path, expected_ms=100)).evidence["rule"] == "absurd"


@pytest.mark.parametrize(
    ("channels", "rate_hz", "bits"),
    [(8, 192_000, 32), (8, 768_000, 32), (1, 2_822_400, 16), (24, 48_000, 24)],
    ids=["192kHz", "768kHz", "DSD64", "22.2"],
)
async def test_numbers_that_music_has(
    channels: int, rate_hz: int, bits: int, tmp_path: Path
) -> None:
    """The highest rates and the most channels in use are within all limits."""
    path = tmp_path / "song.wav"
    path.write_bytes(wave(channels=channels, rate_hz=rate_hz, bits=bits))
    tools = replace(find_tools(), memory_bytes=LEAST_BYTES)
    facts = await verify(path, expected_ms=100, tolerance_s=6, tools=tools)
    assert (facts.channels, facts.sample_rate_hz) == (channels, rate_hz)


async def test_a_tag_of_sixty_thousand_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it has a bound of processor time: ffprobe compares each field with all others."""
    frames = b"".join(
        b"TXXX" + b"\0\0\0\x3a\0\0\x03" + b"%056d\0" % number for number in range(60_000)
    )
    size = len(frames)
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    path = make_audio(tmp_path / "song.mp3", seconds=8, codec="mp3")
    path.write_bytes(b"ID3\x04\0\0" + length + frames + path.read_bytes())
    monkeypatch.setattr(probe, "CPU_S", 1)
    started = os.times()
    assert (await refused(path)).evidence["rule"] == "too_much_work"
    ended = os.times()
    assert ended.children_user - started.children_user < 5


async def test_endless_work_is_ended_by_the_limit_of_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the process that would keep the deadline is dead."""
    path = make_audio(tmp_path / "song.flac", seconds=8)
    monkeypatch.setattr(child, "CPU_S", 1)
    busy = tmp_path / "ffmpeg"
    busy.write_text("#!/bin/sh\nwhile :; do :; done\n")
    busy.chmod(0o755)
    tools = AudioTools(ffmpeg=str(busy), ffprobe=find_tools().ffprobe)
    with pytest.raises(CorruptAudio) as caught:
        await verify(path, expected_ms=8000, tolerance_s=6, tools=tools)
    assert caught.value.evidence["rule"] == "decode_errors"


async def test_the_children_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, processor time, open files; no file is written; our environment stays ours."""
    monkeypatch.setenv("TORRENTINO_API_KEY", "a-secret")
    said = tmp_path / "said"
    os.mkfifo(said)
    script = tmp_path / "ffprobe"
    script.write_text(
        # The limits are set right after the start: this waits for them.
        '#!/bin/sh\nwhile [ "$(ulimit -f)" = unlimited ]; do :; done\n'
        "{ ulimit -v; ulimit -d; ulimit -t; ulimit -f; ulimit -n; ulimit -c;"
        f" cat /proc/$$/oom_score_adj; env; }} > '{said}'\nexit 1\n"
    )
    script.chmod(0o755)
    path = make_audio(tmp_path / "song.flac", seconds=8)
    reading = asyncio.create_task(asyncio.to_thread(said.read_text))
    tools = AudioTools(ffmpeg=find_tools().ffmpeg, ffprobe=str(script))
    with pytest.raises(CorruptAudio):
        await verify(path, expected_ms=8000, tolerance_s=6, tools=tools)
    lines = (await reading).splitlines()
    expected = [child.ADDRESS_BYTES // 1024, tools.memory_bytes // 1024, probe.CPU_S, 0, 64, 0]
    assert lines[:6] == [str(each) for each in expected]
    assert lines[6] == "800"
    assert "a-secret" not in "\n".join(lines)


async def test_a_flood_from_ffprobe_is_bounded(tmp_path: Path) -> None:
    """What a file says of itself cannot fill our memory."""
    script = tmp_path / "ffprobe"
    script.write_text("#!/bin/sh\nexec yes '{'\n")
    script.chmod(0o755)
    path = make_audio(tmp_path / "song.flac", seconds=8)
    tools = AudioTools(ffmpeg=find_tools().ffmpeg, ffprobe=str(script))
    with pytest.raises(CorruptAudio):
        await verify(path, expected_ms=8000, tolerance_s=6, tools=tools)


async def test_an_ffprobe_that_hangs_keeps_the_deadline(tmp_path: Path) -> None:
    """The time limit is of the whole verification, not of the decode only."""
    script = tmp_path / "ffprobe"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    path = make_audio(tmp_path / "song.flac", seconds=8)
    tools = AudioTools(ffmpeg=find_tools().ffmpeg, ffprobe=str(script))
    started = time.monotonic()
    with pytest.raises(AttemptFailed, match="longer than"):
        await verify(path, expected_ms=8000, tolerance_s=6, tools=tools, timeout_s=0.5)
    assert time.monotonic() - started < QUICK_S


def test_both_programs_are_confined_to_the_file(tmp_path: Path) -> None:
    """No protocol but `file`, and no demuxer but those of the table."""
    arguments = command(tmp_path / "x", find_tools(), longest_s=10)
    for option, value in (
        ("-protocol_whitelist", "file"),
        ("-format_whitelist", DEMUXERS),
        ("-t", "10"),
    ):
        assert arguments[arguments.index(option) + 1] == value


@pytest.mark.parametrize("codec", ["opus", "vorbis"])
@pytest.mark.parametrize("keep", [0.9, 0.99, 0.9999])
async def test_an_ogg_without_its_end_is_refused(codec: str, keep: float, tmp_path: Path) -> None:
    """However little is missing: the catalog's tolerance is for other masters, not for cuts."""
    whole = make_audio(tmp_path / "whole", seconds=8, codec=codec)  # type: ignore[arg-type]
    assert (await check(whole)).codec == codec
    error = await refused(cut(tmp_path / "cut", whole, keep=keep))
    assert error.evidence["rule"] in ("truncated", "decode_errors")


@pytest.mark.parametrize("codec", ["opus", "vorbis"])
async def test_what_follows_the_last_ogg_page_does_no_harm(codec: str, tmp_path: Path) -> None:
    """Some programs hang their tag behind the stream."""
    path = make_audio(tmp_path / "song", seconds=8, codec=codec)  # type: ignore[arg-type]
    with path.open("ab") as file:
        file.write(b"TAG" + b"Title".ljust(125, b"\0"))
    assert (await check(path)).codec == codec
