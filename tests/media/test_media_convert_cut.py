"""A track out of one big file is what lies between two moments, to the sample or to the frame."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.media.cut import cut
from shared.media.loudness import loudness
from shared.media.tools import AudioTools, find_tools
from shared.media.verify import AudioFacts
from tests.support.audio import make_audio, overwrite
from tests.support.conversion import Source, Sources, check, run, samples

SECONDS = 12.0
# A CUE sheet counts in frames of 1/75 s.
PARTS = ((0, 3 + 7 / 75), (3 + 7 / 75, 8 + 1 / 75), (8 + 1 / 75, None))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


def big(kind: str, *, rate_hz: int = 44_100, channels: int = 1) -> Source:
    return Source(kind, rate_hz, channels, seconds=SECONDS, noise=True)


async def part_of(
    sources: Sources, source: Source, target: Path, start_s: float, end_s: float | None
) -> AudioFacts:
    return await cut(
        sources.path(source),
        target,
        start_s=start_s,
        end_s=end_s,
        facts=await sources.facts(source),
        tools=find_tools(),
        timeout_s=60,
    )


@pytest.mark.parametrize(
    ("kind", "rate_hz", "channels"),
    [("flac", 44_100, 1), ("wav", 48_000, 2), ("alac", 44_100, 2), ("flac24", 96_000, 6)],
)
async def test_lossless_to_the_sample(
    kind: str, rate_hz: int, channels: int, sources: Sources, tmp_path: Path
) -> None:
    """The parts are FLACs that make the whole again: no sample is missing, none is there twice."""
    source = big(kind, rate_hz=rate_hz, channels=channels)
    together = b""
    for number, (start_s, end_s) in enumerate(PARTS):
        target = tmp_path / f"{number}.part"
        facts = await part_of(sources, source, target, start_s, end_s)
        assert (facts.ext, facts.sample_rate_hz, facts.channels) == ("flac", rate_hz, channels)
        until_s = SECONDS if end_s is None else end_s
        assert facts.duration_ms == pytest.approx(1000 * (until_s - start_s), abs=1)
        together += samples(target)
    assert together == samples(sources.path(source))


@pytest.mark.parametrize(
    ("kind", "ext"),
    [("mp3", "mp3"), ("aac", "m4a"), ("adts", "aac"), ("opus", "opus"), ("vorbis", "ogg")],
)
async def test_lossy_to_the_frame(kind: str, ext: str, sources: Sources, tmp_path: Path) -> None:
    """A part has its length within 0.1 s, starts where it should, and was not encoded again."""
    source = big(kind, channels=2)
    whole = mono(sources.path(source))
    for number, (start_s, end_s) in enumerate(PARTS):
        target = tmp_path / f"{number}.part"
        facts = await part_of(sources, source, target, start_s, end_s)
        until_s = SECONDS if end_s is None else end_s
        assert facts.ext == ext
        assert facts.duration_ms == pytest.approx(1000 * (until_s - start_s), abs=100)
        await check(target, seconds=until_s - start_s)
        assert abs(shift_s(whole, mono(target), start_s)) < 0.04


def mono(path: Path) -> memoryview:
    return memoryview(samples(path, "-ac", "1", "-ar", "8000")).cast("h")


def shift_s(whole: memoryview, part: memoryview, start_s: float) -> float:
    """By how much the part begins too late in the whole, as their noise tells; 0.1 s at most."""
    rate_hz, at, length = 8_000, 8_000, 800
    wanted = part[at : at + length].tolist()
    begin = int(start_s * rate_hz) + at

    def likeness(by: int) -> int:
        there = whole[begin + by : begin + by + length].tolist()
        return sum(a * b for a, b in zip(wanted, there, strict=True))

    return max(range(-800, 800), key=likeness) / rate_hz


@pytest.mark.parametrize(("start_s", "end_s"), [(12.5, None), (5, 5.05), (-1, 4), (11.99, 15)])
async def test_no_such_part(
    start_s: float, end_s: float | None, sources: Sources, tmp_path: Path
) -> None:
    """A CUE sheet of another release names parts that are not there."""
    with pytest.raises(AttemptFailed) as caught:
        await part_of(sources, big("flac"), tmp_path / "x", start_s, end_s)
    assert caught.value.error_type is ErrorType.NOT_FOUND
    assert not (tmp_path / "x").exists()


async def test_an_end_beyond_the_end(sources: Sources, tmp_path: Path) -> None:
    """The last part may be said to end a little later than the file does."""
    facts = await part_of(sources, big("flac"), tmp_path / "x", 8, SECONDS + 2)
    assert facts.duration_ms == 4000


async def test_what_cannot_be_cut_is_not_encoded_again(sources: Sources, tmp_path: Path) -> None:
    """Windows Media has no frames that stand alone: that is said, and nothing is written."""
    with pytest.raises(AttemptFailed, match="without encoding it again") as caught:
        await part_of(sources, big("wma", channels=2), tmp_path / "x", 3, 8)
    assert caught.value.error_type is ErrorType.NOT_FOUND
    assert not (tmp_path / "x").exists()


async def test_tags_of_the_whole_are_left_out(sources: Sources, tmp_path: Path) -> None:
    """The album's title is not the track's."""
    for kind in ("flac", "mp3"):
        target = tmp_path / kind
        await part_of(sources, big(kind, channels=2), target, 3, 8)
        assert b"umerei" not in target.read_bytes()


async def test_damaged_part(sources: Sources, tmp_path: Path) -> None:
    """Where the source is broken a part is refused; the others are not."""
    source = big("flac")
    broken = overwrite(tmp_path / "broken", sources.path(source))
    facts, tools = await sources.facts(source), find_tools()
    with pytest.raises(CorruptAudio):
        await cut(
            *(broken, tmp_path / "x"),
            start_s=3,
            end_s=8,
            facts=facts,
            tools=tools,
            timeout_s=60,
        )
    assert not (tmp_path / "x").exists()
    await cut(*(broken, tmp_path / "y"), start_s=0, end_s=3, facts=facts, tools=tools, timeout_s=60)


async def test_cancelled_while_it_is_proven(sources: Sources, tmp_path: Path) -> None:
    """A part that is not needed any more is not left behind."""
    pipe, target, script = tmp_path / "pid", tmp_path / "x", tmp_path / "ffprobe"
    os.mkfifo(pipe)
    script.write_text(f"#!/bin/sh\necho $$ > '{pipe}'; exec sleep 600\n")
    script.chmod(0o755)
    facts = await sources.facts(big("flac"))
    tools = AudioTools(ffmpeg=find_tools().ffmpeg, ffprobe=str(script))
    task = asyncio.create_task(
        cut(
            *(sources.path(big("flac")), target),
            start_s=3,
            end_s=8,
            facts=facts,
            tools=tools,
            timeout_s=60,
        )
    )
    await asyncio.to_thread(pipe.read_text)
    assert target.exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not target.exists()


async def test_variable_bit_rate(tmp_path: Path) -> None:
    """A VBR MP3 is cut by time, not by bytes."""
    path = tmp_path / "vbr.mp3"
    sound = "sine=440:d=6[a];anoisesrc=d=6:a=0.9[b];[a][b]concat=v=0:a=1"
    run("-filter_complex", sound, "-c:a", "libmp3lame", "-q:a", "4", "-f", "mp3", str(path))
    facts = await check(path, seconds=12)
    tools, target = find_tools(), tmp_path / "x"
    found = await cut(path, target, start_s=5, end_s=9, facts=facts, tools=tools, timeout_s=60)
    assert found.duration_ms == pytest.approx(4000, abs=60)


async def test_an_mp4_behind_an_id3_tag(tmp_path: Path) -> None:
    """What `verify` takes is cut and compared, though its index does not count the tag."""
    plain = make_audio(tmp_path / "plain", seconds=4, codec="alac")
    tagged, target = tmp_path / "tagged", tmp_path / "x.part"
    tagged.write_bytes(b"ID3\x03\0\0\0\0\x07\0" + bytes(896) + plain.read_bytes())
    facts = await check(tagged, seconds=4)
    tools = find_tools()
    await cut(tagged, target, start_s=1, end_s=3, facts=facts, tools=tools, timeout_s=60)
    await check(target, seconds=2)
    heard = [await loudness(path, tools, step_s=0.1, longest_s=60) for path in (plain, tagged)]
    assert heard[0] == heard[1]
    assert heard[0]
