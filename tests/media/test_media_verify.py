"""`verify` takes every good file and no broken one, and says by which rule."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import get_args

import ffmpeg
import pytest

from services.local.audio import ToneCodec
from services.local.sample import write_sample
from shared.catalog.sqlite import Catalog
from shared.errors import AttemptFailed, CorruptAudio, DependencyDown, ErrorType, Misconfigured
from shared.media.complaints import damage_lines, serious_lines
from shared.media.decode import decode
from shared.media.probe import probe
from shared.media.tails import audio_end
from shared.media.tools import AudioTools, find_tools
from shared.media.verify import AudioFacts, verify
from tests.support.audio import cut, make_audio, overwrite

READERS = "mp3,flac,ogg,mov,aac,wav,asf,matroska"
SECONDS = 30
TOLERANCE_S = 6.0
EXT: dict[ToneCodec, str] = {
    "flac": "flac",
    "mp3": "mp3",
    "opus": "opus",
    "vorbis": "ogg",
    "aac": "m4a",
    "alac": "m4a",
    "wav": "wav",
}
CODECS: tuple[ToneCodec, ...] = get_args(ToneCodec)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[ToneCodec, Path]:
    """One whole file of each format, `SECONDS` long."""
    folder = tmp_path_factory.mktemp("good")
    return {c: make_audio(folder / f"{c}.bin", seconds=SECONDS, codec=c) for c in CODECS}


@pytest.fixture
def tools() -> AudioTools:
    return find_tools()


async def check(
    path: Path, *, expected_ms: int | None = SECONDS * 1000, tolerance_s: float = TOLERANCE_S
) -> AudioFacts:
    return await verify(
        path, expected_ms=expected_ms, tolerance_s=tolerance_s, tools=find_tools(), timeout_s=60
    )


async def refused(path: Path, *, expected_ms: int | None = SECONDS * 1000) -> CorruptAudio:
    with pytest.raises(CorruptAudio) as caught:
        await check(path, expected_ms=expected_ms)
    assert caught.value.error_type is ErrorType.CORRUPTION
    return caught.value


@pytest.mark.parametrize("codec", CODECS)
async def test_good_file_passes(codec: ToneCodec, good: dict[ToneCodec, Path]) -> None:
    """Every format that we take passes, and its extension comes from its content."""
    facts = await check(good[codec])
    assert facts.ext == EXT[codec]
    assert facts.duration_ms == pytest.approx(SECONDS * 1000, abs=30)
    assert facts.size_bytes == good[codec].stat().st_size
    assert facts.sha256 == hashlib.sha256(good[codec].read_bytes()).hexdigest()
    assert facts.channels in (1, 2)
    assert facts.sample_rate_hz in (44100, 48000)
    assert facts.bitrate_kbps > 10


@pytest.mark.parametrize("codec", ["flac", "mp3", "aac"])
async def test_cover_is_no_video(codec: ToneCodec, tmp_path: Path) -> None:
    """An attached picture does not make a song a video."""
    path = make_audio(tmp_path / "x", seconds=5, codec=codec, cover=True)
    assert (await check(path, expected_ms=5000)).ext == EXT[codec]


@pytest.mark.parametrize("codec", ["flac", "mp3", "aac"])
async def test_damaged_cover_is_no_damaged_song(codec: ToneCodec, tmp_path: Path) -> None:
    """What a picture decoder complains about does not count."""
    path = make_audio(tmp_path / "x", seconds=5, codec=codec, cover=True)
    damaged = bytearray(path.read_bytes())
    picture = damaged.rfind(b"\xff\xd8\xff")
    damaged[picture + 60 : picture + 160] = bytes(100)
    path.write_bytes(damaged)
    assert (await check(path, expected_ms=5000)).ext == EXT[codec]


async def test_mp3_without_a_frame_count(tmp_path: Path, tools: AudioTools) -> None:
    """ffprobe guesses the length of such a VBR file 10 % wrong; the guess does not count."""
    path = tmp_path / "vbr.mp3"
    tone = ffmpeg.input(f"sine=duration={SECONDS}", f="lavfi")
    output = tone.output(str(path), **{"q:a": 4, "write_xing": 0, "c:a": "libmp3lame"})
    ffmpeg.run(output, cmd=tools.ffmpeg, quiet=True)
    assert (await check(path)).ext == "mp3"


ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")


@pytest.mark.parametrize(("codec", "tag"), [("mp3", ID3V1), ("flac", ID3V1)])
async def test_tag_behind_the_audio(
    codec: ToneCodec, tag: bytes, good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """A tag at the end is no damage, even where the decoder stumbles over it."""
    path = tmp_path / "tagged"
    path.write_bytes(good[codec].read_bytes() + tag)
    assert (await check(path)).duration_ms == pytest.approx(SECONDS * 1000, abs=30)


APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 500, 1, 0) + bytes(8)
LYRICS = b"LYRICSBEGIN" + b"IND0000200" + b"LYR00012hello world!" + b"000041LYRICS200"


@pytest.mark.parametrize("codec", ["mp3", "flac"])
@pytest.mark.parametrize(
    "tags",
    [bytes(500) + APE, LYRICS + ID3V1, bytes(500) + APE + LYRICS + ID3V1],
    ids=["ape", "lyrics", "all"],
)
async def test_tags_behind_the_audio_are_not_decoded(
    codec: ToneCodec, tags: bytes, good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """Each is left out by its own length, so that no ffmpeg has to make sense of it."""
    path = tmp_path / "tagged"
    audio = good[codec].read_bytes()
    path.write_bytes(audio + tags)
    assert audio_end(path) == len(audio)
    probed = await probe(path, find_tools(), {})
    assert (await decode(path, find_tools(), longest_s=100, probed=probed)).errors == ()


@pytest.mark.parametrize(
    "tail",
    [b"000043LYRICS200", b"99999999LYRICS200", b"LYRICS200", APE, b"TAG", b"", b"x" * 200],
)
def test_a_tag_that_is_none_ends_nothing(tail: bytes, tmp_path: Path) -> None:
    """What would begin before the file, or has no length, is not taken for a tag."""
    path = tmp_path / "short"
    path.write_bytes(b"ab" + tail)
    assert audio_end(path) is None


async def test_a_cut_before_a_tag_is_still_found(
    good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """Half a song with a whole tag is half a song."""
    path = tmp_path / "half"
    audio = good["flac"].read_bytes()
    path.write_bytes(audio[: len(audio) // 2] + ID3V1)
    with pytest.raises(CorruptAudio):
        await check(path)


async def test_unreadable_id3_frames(good: dict[ToneCodec, Path], tmp_path: Path) -> None:
    """A broken title frame is complained about, and is not the music."""
    body = b"\x01\x00A\x00B\x00"
    frame = b"TIT2" + len(body).to_bytes(4, "big") + bytes(2) + body
    path = tmp_path / "song.mp3"
    tag = b"ID3\x03\0\0" + bytes([0, 0, 0, len(frame)]) + frame
    audio = good["mp3"].read_bytes()
    path.write_bytes(tag + audio[audio.find(b"\xff\xfb") :])
    assert (await check(path)).ext == "mp3"


async def test_extension_comes_from_the_content(
    good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """FLAC data named .mp3 is a good FLAC."""
    path = tmp_path / "song.mp3"
    path.write_bytes(good["flac"].read_bytes())
    assert (await check(path)).ext == "flac"


@pytest.mark.parametrize("name", ["%d [x] 100%.flac", "-i.flac", "http:x.flac", "ü\n'\".flac"])
async def test_any_file_name(name: str, good: dict[ToneCodec, Path], tmp_path: Path) -> None:
    """No name is taken for an option, a pattern or a URL."""
    path = tmp_path / name
    path.write_bytes(good["flac"].read_bytes())
    assert (await check(path)).ext == "flac"


@pytest.mark.parametrize(
    ("codec", "rules"),
    [
        ("mp3", {"truncated"}),
        ("flac", {"decode_errors"}),
        ("vorbis", {"truncated"}),
        ("opus", {"truncated"}),
        ("aac", {"not_audio"}),
        ("alac", {"not_audio"}),
        ("wav", {"truncated"}),
    ],
)
async def test_cut_file(
    codec: ToneCodec, rules: set[str], good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """Sixty percent of a song is refused, whatever ffprobe says about it."""
    error = await refused(cut(tmp_path / "cut", good[codec]))
    assert error.evidence["rule"] in rules


async def test_end_missing_within_the_tolerance(
    good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """The last 3 % are missed even though the catalog's tolerance would allow it."""
    error = await refused(cut(tmp_path / "cut", good["mp3"], keep=0.97))
    assert error.evidence["rule"] == "truncated"


@pytest.mark.parametrize("codec", ["mp3", "flac", "vorbis", "opus", "aac", "alac"])
async def test_overwritten_file(
    codec: ToneCodec, good: dict[ToneCodec, Path], tmp_path: Path
) -> None:
    """20 kB of noise in the middle are heard by the decoder, or missing in the length."""
    error = await refused(overwrite(tmp_path / "noise", good[codec]))
    assert error.evidence["rule"] in ("decode_errors", "truncated")


@pytest.mark.parametrize("codec", ["flac", "vorbis", "opus"])
async def test_single_bit(codec: ToneCodec, good: dict[ToneCodec, Path], tmp_path: Path) -> None:
    """Formats with checksums do not forgive one bit."""
    damaged = bytearray(good[codec].read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    path = tmp_path / "bit"
    path.write_bytes(damaged)
    assert (await refused(path)).evidence["rule"] in ("decode_errors", "truncated")


async def test_zero_bytes_named_mp3(tmp_path: Path) -> None:
    """Three megabytes of nothing, which ffprobe calls an MP3."""
    path = tmp_path / "zeros.mp3"
    path.write_bytes(bytes(3_000_000))
    assert (await refused(path)).evidence["rule"] in ("not_audio", "decode_errors")


@pytest.mark.parametrize("size_bytes", [0, 100])
async def test_too_small(size_bytes: int, tmp_path: Path) -> None:
    """An empty file, or one that is shorter than any header, is not worth a decoder."""
    path = tmp_path / "small.mp3"
    path.write_bytes(bytes(size_bytes))
    error = await refused(path)
    assert error.evidence["rule"] == "too_small"
    assert error.evidence["size_bytes"] == size_bytes


async def test_few_seconds_are_not_too_small(tmp_path: Path) -> None:
    """A real track of two seconds passes below the general floor."""
    path = make_audio(tmp_path / "short", seconds=1, codec="opus")
    assert path.stat().st_size < 10 * 1024
    assert (await check(path, expected_ms=1000)).ext == "opus"


async def test_video(tmp_path: Path, tools: AudioTools) -> None:
    """A clip is refused though its sound would do."""
    path = tmp_path / "clip.m4a"
    picture = ffmpeg.input("testsrc=d=5:s=64x64", f="lavfi")
    tone = ffmpeg.input("sine=d=5", f="lavfi")
    options = {"c:v": "mpeg4", "c:a": "aac", "f": "mp4"}
    ffmpeg.run(ffmpeg.output(picture, tone, str(path), **options), cmd=tools.ffmpeg, quiet=True)
    assert (await refused(path, expected_ms=5000)).evidence["rule"] == "video"


@pytest.mark.parametrize("form", ["au", "voc"])
async def test_codec_not_allowed(form: str, tmp_path: Path, tools: AudioTools) -> None:
    """What is not in the table of formats is refused by name."""
    path = tmp_path / "song.mp3"
    tone = ffmpeg.input("sine=d=5", f="lavfi")
    ffmpeg.run(tone.output(str(path), f=form), cmd=tools.ffmpeg, quiet=True)
    assert (await refused(path, expected_ms=5000)).evidence["rule"] == "codec_not_allowed"


async def test_two_songs_in_one_file(
    good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """Of two streams it is unknown which is the song."""
    path = tmp_path / "two.m4a"
    one, two = (ffmpeg.input(str(good[c])) for c in ("aac", "alac"))
    both = ffmpeg.output(one, two, str(path), c="copy", f="ipod")
    ffmpeg.run(both, cmd=tools.ffmpeg, quiet=True)
    assert (await refused(path)).evidence["rule"] == "several_streams"


@pytest.mark.parametrize(
    "text",
    [
        b"<!DOCTYPE html><html><body>Not found</body></html>\n" * 400,
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n" + b"#\n" * 20_000,
        b"ffconcat version 1.0\nfile good.flac\n" + b"#\n" * 20_000,
    ],
)
async def test_text_is_no_song(text: bytes, good: dict[ToneCodec, Path], tmp_path: Path) -> None:
    """An error page is refused, and a playlist is not followed."""
    (tmp_path / "good.flac").write_bytes(good["flac"].read_bytes())
    path = tmp_path / "song.ogg"
    path.write_bytes(text)
    assert (await refused(path)).evidence["rule"] in ("not_audio", "codec_not_allowed")


async def test_wrong_song(good: dict[ToneCodec, Path]) -> None:
    """A whole song of another length is not the one that was asked for."""
    error = await refused(good["flac"], expected_ms=240_000)
    assert error.evidence == {
        "rule": "wrong_length",
        "expected_s": 240.0,
        "container_s": 30.0,
        "decoded_s": 30.0,
        "codec": "flac",
        "container": "flac",
        "size_bytes": good["flac"].stat().st_size,
        "decoder_errors": [],
    }


async def test_unknown_length_is_not_compared(good: dict[ToneCodec, Path]) -> None:
    """Without a length in the catalog the file's own has to do."""
    assert (await check(good["flac"], expected_ms=None)).ext == "flac"
    assert (await check(good["flac"], expected_ms=0)).ext == "flac"


@pytest.mark.parametrize("codec", CODECS)
async def test_only_the_first_seconds_count(codec: ToneCodec, good: dict[ToneCodec, Path]) -> None:
    """What follows them is not decoded, and its length is not compared."""
    facts = await verify(
        good[codec], expected_ms=None, tolerance_s=TOLERANCE_S, tools=find_tools(), most_s=10
    )
    assert facts.duration_ms == pytest.approx(10_000, abs=30)


async def test_link_is_refused(good: dict[ToneCodec, Path], tmp_path: Path) -> None:
    """Only a regular file is inspected."""
    path = tmp_path / "link.flac"
    path.symlink_to(good["flac"])
    assert (await refused(path)).evidence["rule"] == "not_audio"


async def test_missing_file(tmp_path: Path) -> None:
    """A file that is gone is a failed attempt, not damaged audio."""
    with pytest.raises(AttemptFailed) as caught:
        await check(tmp_path / "gone")
    assert caught.value.error_type is ErrorType.STORAGE


async def test_sample_is_what_its_catalog_says(tmp_path: Path) -> None:
    """Every song that `make run` shows passes closely, and a second call makes nothing again."""
    sample = write_sample(tmp_path / "sample")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "sample" / "songs").iterdir()}
    assert write_sample(tmp_path / "sample") == sample
    assert times == {path: path.stat().st_mtime_ns for path in times}
    catalog = Catalog(sample.catalog)
    albums = [await catalog.album(id_) for id_ in (sample.album_id, sample.second_album_id)]
    await catalog.close()
    paths = {song["title"]: Path(song["path"]) for song in sample.songs}
    tracks = [track for album in albums if album is not None for track in album.tracks]
    for track in tracks:
        facts = await check(paths[track.name], expected_ms=track.duration_ms, tolerance_s=0.1)
        assert f".{facts.ext}" == paths[track.name].suffix
    assert len(tracks) == len(sample.songs) == 17


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def instead(tools: AudioTools, which: str, path: str) -> AudioTools:
    """The tools with this program for one of them."""
    return replace(tools, ffmpeg=path) if which == "ffmpeg" else replace(tools, ffprobe=path)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def slow_ffmpeg(tmp_path: Path, tools: AudioTools) -> tuple[AudioTools, Path]:
    """An ffmpeg that tells its process id through a named pipe and then never ends."""
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    slow = script(tmp_path / "ffmpeg", f"echo $$ > '{pipe}'; exec sleep 600")
    return AudioTools(ffmpeg=slow, ffprobe=tools.ffprobe), pipe


async def test_cancellation_ends_ffmpeg(
    good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """No decoder outlives the task that wanted it."""
    slow, pipe = slow_ffmpeg(tmp_path, tools)
    task = asyncio.create_task(
        verify(good["flac"], expected_ms=None, tolerance_s=6, tools=slow, timeout_s=60)
    )
    pid = int(await asyncio.to_thread(pipe.read_text))
    assert alive(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_timeout_ends_ffmpeg(
    good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """A decode that takes too long is a failed attempt, and leaves nothing running."""
    slow, pipe = slow_ffmpeg(tmp_path, tools)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    with pytest.raises(AttemptFailed) as caught:
        await verify(good["flac"], expected_ms=None, tolerance_s=6, tools=slow, timeout_s=3)
    assert caught.value.error_type is ErrorType.TIMEOUT
    assert not alive(int(await reading))


async def test_flood_of_errors_is_bounded(
    good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """A decoder that never stops complaining is stopped."""
    loud = script(tmp_path / "ffmpeg", "exec yes 'bad frame' >&2")
    with pytest.raises(CorruptAudio) as caught:
        await verify(
            good["flac"],
            expected_ms=None,
            tolerance_s=6,
            tools=AudioTools(ffmpeg=loud, ffprobe=tools.ffprobe),
        )
    assert caught.value.evidence["rule"] == "decode_errors"
    assert len(str(caught.value.evidence)) < 10_000


@pytest.mark.parametrize("how", ["kill -TERM $$", "exit 255"])
async def test_ffmpeg_stopped_from_outside(
    how: str, good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """A stop says nothing about the song."""
    killed = AudioTools(ffmpeg=script(tmp_path / "ffmpeg", how), ffprobe=tools.ffprobe)
    with pytest.raises(DependencyDown, match="stopped"):
        await verify(good["flac"], expected_ms=None, tolerance_s=6, tools=killed)


async def test_ffprobe_stopped_from_outside(
    good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """An ffprobe without an answer does not make the song a bad one."""
    killed = AudioTools(ffmpeg=tools.ffmpeg, ffprobe=script(tmp_path / "p", "kill -TERM $$"))
    with pytest.raises(AttemptFailed) as caught:
        await verify(good["flac"], expected_ms=None, tolerance_s=6, tools=killed)
    assert caught.value.error_type is ErrorType.UNKNOWN


@pytest.mark.parametrize("which", ["ffmpeg", "ffprobe"])
async def test_killed_by_the_kernel(
    which: str, good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """Once may be another program's fault, so there is a second try; twice is the file's."""
    real = str(getattr(tools, which))
    once = f"[ -e '{tmp_path}/seen' ] && exec '{real}' \"$@\"; touch '{tmp_path}/seen'"
    first = instead(tools, which, script(tmp_path / "once", f"{once}; kill -KILL $$"))
    facts = await verify(good["flac"], expected_ms=None, tolerance_s=6, tools=first)
    assert facts.codec == "flac"
    always = instead(tools, which, script(tmp_path / "always", "kill -KILL $$"))
    with pytest.raises(CorruptAudio, match="killed twice"):
        await verify(good["flac"], expected_ms=None, tolerance_s=6, tools=always)


@pytest.mark.parametrize("missing", ["ffmpeg", "ffprobe"])
async def test_tools_that_do_not_start(
    missing: str, good: dict[ToneCodec, Path], tmp_path: Path, tools: AudioTools
) -> None:
    """A missing program is a matter of the installation, not of the song."""
    none = instead(tools, missing, str(tmp_path / "none"))
    with pytest.raises(Misconfigured, match="pip install"):
        await verify(good["flac"], expected_ms=None, tolerance_s=6, tools=none)


def test_no_tools_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without both programs the start stops with what to install."""

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Misconfigured, match=r"install ffmpeg 5\.1 or newer, or pip install"):
        find_tools()


def test_repeated_line_belongs_to_the_one_before() -> None:
    """ffmpeg folds equal lines into a count; the count weighs as much as the line."""
    assert serious_lines("[mjpeg @ 0x1] bad\n    Last message repeated 3 times\n") == ()
    assert len(serious_lines("[ogg @ 0x1] CRC\n    Last message repeated 3 times\n")) == 2


@pytest.mark.parametrize(
    "line",
    [
        "[mp3float @ 0x1] Header missing",
        "[aist#0:0/mp3 @ 0x1] [dec:mp3float @ 0x2] Error submitting packet to decoder: Invalid",
        "Error while decoding stream #0:0: Invalid data found when processing input",
        "[flac @ 0x1] invalid sync code",
        "[ogg @ 0x1] CRC mismatch!",
        "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] stream 0, offset 0x1234: partial file",
        "[in#0/aac @ 0x1] Error during demuxing: Input/output error",
        "file:/tmp/song: Invalid data found when processing input",
        "[asf @ 0x1] packet_obj_size 1824377890 invalid",
        "[matroska,webm @ 0x1] 0x00 at pos 4096 (0x1000) invalid as first byte of an EBML number",
    ],
)
def test_what_is_about_damaged_or_lost_audio(line: str) -> None:
    """A decoder said it, or ffmpeg for it, or a reader that lost some."""
    assert damage_lines(line, readers=READERS) == (line,)


@pytest.mark.parametrize(
    "line",
    [
        "[mp3 @ 0x1] Chapter end time 1000 before start 5000",
        "[in#0 @ 0x1] Chapter end time 1000 before start 5000",
        "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] error reading header",
        "Cannot read BOM value, input too short",
        "[Vorbis parser @ 0x1] Invalid packet",
        "[null @ 0x1] Application provided invalid, non monotonically increasing dts to muxer",
        "[mp3 @ 0x1] [png @ 0x2] Invalid PNG signature",
    ],
)
def test_what_is_not_about_the_audio(line: str) -> None:
    """Tags, chapters, covers, the reader of the container, and ffmpeg's own output."""
    assert damage_lines(line, readers=READERS) == ()
