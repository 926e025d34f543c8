"""Conversion: the matrix of formats, rates, channels and covers, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from shared.errors import AttemptFailed, CorruptAudio, DependencyDown, ErrorType, Misconfigured
from shared.media.capabilities import capabilities
from shared.media.convert import Slots, convert
from shared.media.encoders import Plan, Target
from shared.media.ffmpeg_write import write_audio
from shared.media.formats import AudioFormat
from shared.media.tools import AudioTools, find_tools, release_of
from shared.media.verify import AudioFacts
from tests.support.audio import cut, make_audio
from tests.support.conversion import (
    TAGS,
    Source,
    Sources,
    check,
    converted,
    planned,
    probed,
    samples,
    samples32,
    tags_in,
)
from tests.support.mounts import tmpfs

RATES = (44_100, 48_000, 96_000, 192_000)
CHANNELS = (1, 2, 6)
LOSSY: tuple[AudioFormat, ...] = ("ogg_vorbis", "opus", "mp3", "aac")
# A cover changes neither rate nor channels.
MATRIX = (
    *itertools.product(RATES, CHANNELS, (False,)),
    *((44_100, 2, True), (96_000, 6, True)),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


async def rate_and_channels(format_: AudioFormat, rate_hz: int, channels: int) -> tuple[int, int]:
    """What has to come out, told apart from the code that decides it."""
    highest = {"opus": 48_000, "mp3": 48_000, "ogg_vorbis": 48_000, "aac": 96_000}
    rate_hz = min(rate_hz, highest.get(format_, rate_hz))
    if format_ == "opus":
        rate_hz = 48_000
    if format_ == "mp3":
        channels = min(channels, 2)
    has = await capabilities(find_tools())
    if format_ == "ogg_vorbis" and "libvorbis" not in has.encoders:
        channels = 2
    return rate_hz, channels


def only_audio(path: Path) -> bool:
    return [stream["codec_type"] for stream in probed(path)["streams"]] == ["audio"]


# --- the matrix


@pytest.mark.parametrize("format_", LOSSY)
@pytest.mark.parametrize(("rate_hz", "channels", "cover"), MATRIX)
async def test_lossless_to_lossy(
    *,
    format_: AudioFormat,
    rate_hz: int,
    channels: int,
    cover: bool,
    sources: Sources,
    tmp_path: Path,
) -> None:
    """Every FLAC becomes a file that plays, has its length, the rate and the channels, no cover."""
    source = Source("flac", rate_hz, channels, cover)
    path = tmp_path / "x.part"
    found = await converted(sources, source, Target(format=format_), path)
    expected = await rate_and_channels(format_, rate_hz, channels)
    assert (found.sample_rate_hz, found.channels) == expected
    assert not cover or only_audio(path)


@pytest.mark.parametrize(("rate_hz", "channels", "cover"), MATRIX)
async def test_lossless_to_flac(
    rate_hz: int, channels: int, cover: bool, sources: Sources, tmp_path: Path
) -> None:
    """Every ALAC becomes a FLAC of the same samples, without its cover."""
    source = Source("alac", rate_hz, channels, cover)
    path = tmp_path / "x.part"
    found = await converted(sources, source, Target(format="flac"), path)
    assert (found.sample_rate_hz, found.channels) == (rate_hz, channels)
    assert samples(path) == samples(sources.path(source))
    assert not cover or only_audio(path)


@pytest.mark.parametrize("target", ["original", "flac"])
@pytest.mark.parametrize(("rate_hz", "channels", "cover"), MATRIX)
async def test_stays_as_it_is(
    target: AudioFormat, rate_hz: int, channels: int, cover: bool, sources: Sources
) -> None:
    """A FLAC plays and verifies, and is left alone where nothing or FLAC is asked for."""
    source = Source("flac", rate_hz, channels, cover)
    facts = await sources.facts(source)
    assert (facts.sample_rate_hz, facts.channels) == (rate_hz, channels)
    assert await planned(facts, Target(format=target)) is None


# --- other sources

KINDS = ("ogg_flac", "alac", "wav", "wav_float", "mp3", "aac", "adts", "opus", "vorbis", "wma")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format_", [*LOSSY, "flac"])
async def test_other_sources(
    kind: str, format_: AudioFormat, sources: Sources, tmp_path: Path
) -> None:
    """Whatever we take converts with its tags, unless it is in the format or FLAC is no use.

    Windows Media becomes Opus then.
    """
    source = Source(kind)
    lossy = kind in ("mp3", "aac", "adts", "opus", "vorbis", "wma")
    same = (kind, format_) in {("mp3", "mp3"), ("aac", "aac"), ("opus", "opus")}
    if (
        same
        or (kind, format_) == ("vorbis", "ogg_vorbis")
        or (lossy and kind != "wma" and format_ == "flac")
    ):
        assert await planned(await sources.facts(source), Target(format=format_)) is None
        return
    path = tmp_path / "x.part"
    found = await converted(sources, source, Target(format=format_), path)
    if lossy:
        assert audio_kbps(found) <= (await sources.facts(source)).bitrate_kbps * 1.05
    if kind != "adts":  # it has none
        assert tags_in(path).items() >= TAGS.items()
    assert only_audio(path)


@pytest.mark.parametrize(("kind", "bits"), [("alac", 16), ("alac24", 24), ("wav_float", 24)])
async def test_flac_keeps_the_depth(kind: str, bits: int, sources: Sources, tmp_path: Path) -> None:
    """16 bits stay 16, 24 stay 24, and what has more gets the most that FLAC is used with."""
    path = tmp_path / "x.part"
    await converted(sources, Source(kind), Target(format="flac"), path)
    assert int(probed(path)["streams"][0]["bits_per_raw_sample"]) == bits


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("alac", "flac"),
        ("alac24", "flac"),
        ("wav_double", "flac"),
        ("wma", "opus"),
        ("wma1", "opus"),
    ],
)
async def test_what_browsers_do_not_play(
    kind: str, codec: str, sources: Sources, tmp_path: Path
) -> None:
    """With AUDIO_FORMAT=original: all of it is there, the lossless sample by sample."""
    source, path = Source(kind, seconds=4.0), tmp_path / "x.part"
    before = await sources.facts(source)
    found = await converted(sources, source, Target(format="original"), path)
    assert found.codec == codec
    assert abs(found.duration_ms - before.duration_ms) < 20
    if kind.startswith("alac"):
        assert samples32(path) == samples32(sources.path(source))
        depth = "24" if kind == "alac24" else "16"
        assert probed(path)["streams"][0]["bits_per_raw_sample"] == depth
    if codec == "opus":
        assert audio_kbps(found) <= before.bitrate_kbps * 1.05
    assert tags_in(path).items() >= TAGS.items()


async def test_flac_with_32_bits(sources: Sources, tmp_path: Path) -> None:
    """Firefox does not play it: it becomes FLAC with 24."""
    if release_of(find_tools().ffmpeg) < (6, 0):
        pytest.skip("this ffmpeg makes one with 24 bits")
    source, path = Source("flac32"), tmp_path / "x.part"
    facts = await sources.facts(source)
    assert facts.sample_bits == 32
    found = await converted(sources, source, Target(format="original"), path)
    assert (found.codec, found.sample_bits) == ("flac", 24)
    assert await planned(found, Target(format="original")) is None


async def test_raw_aac_is_not_encoded_again(sources: Sources, tmp_path: Path) -> None:
    """From ADTS to MP4 only the container changes: the sound is the same, to the sample."""
    path = tmp_path / "x.part"
    await converted(sources, Source("adts"), Target(format="aac"), path)
    assert samples(path) == samples(sources.path(Source("adts")))


@pytest.mark.parametrize("channels", [3, 4, 8])
@pytest.mark.parametrize("format_", LOSSY)
async def test_uncommon_channels(
    format_: AudioFormat, channels: int, sources: Sources, tmp_path: Path
) -> None:
    """Three and four channels are kept where the format can, eight are mixed to 5.1."""
    path = tmp_path / "x.part"
    source = Source("flac", 48_000, channels)
    found = await converted(sources, source, Target(format=format_), path)
    assert found.channels in (2, min(channels, 6))


@pytest.mark.parametrize(
    ("rate_hz", "quality"),
    [(8_000, 32), (8_000, 512), (11_025, 512), (22_050, 512), (32_000, 32), (176_400, 512)],
)
@pytest.mark.parametrize("format_", LOSSY)
async def test_uncommon_rates(
    format_: AudioFormat, rate_hz: int, quality: int, sources: Sources, tmp_path: Path
) -> None:
    """An old or an odd sample rate is no obstacle, at any quality that may be asked for."""
    target = Target(format=format_, quality=quality)
    await converted(sources, Source("wav", rate_hz, channels=1), target, tmp_path / "x.part")


@pytest.mark.parametrize("kbps", [48, 128])
@pytest.mark.parametrize("format_", LOSSY)
async def test_noise_gets_no_higher_bit_rate(
    format_: AudioFormat, kbps: int, sources: Sources, tmp_path: Path
) -> None:
    """Even white noise, the dearest sound there is, does not exceed its lossy source."""
    source = Source("mp3" if format_ == "aac" else "aac", noise=True, seconds=4.0)
    path, facts = sources.path(source), await sources.facts(source)
    made = await planned(facts, Target(format=format_, quality=kbps))
    assert made is not None
    target = tmp_path / "x.part"
    seconds = facts.duration_ms / 1000
    await convert(path, target, made, find_tools(), duration_s=seconds, timeout_s=60)
    # libvorbis evens out over two seconds.
    reserve_s = 2 if made.encoder == "libvorbis" else 0
    allowed = facts.bitrate_kbps * 1.02 * (1 + reserve_s / seconds)
    assert audio_kbps(await check(target, seconds=seconds)) <= allowed


def audio_kbps(facts: AudioFacts) -> float:
    """Its bit rate without headers and tags, which weigh much in a file of a second."""
    return (facts.size_bytes - 4096) * 8 / facts.duration_ms


async def test_doubled_mono_is_as_loud(sources: Sources, tmp_path: Path) -> None:
    """Where one channel becomes two, each is what the one was."""
    path = tmp_path / "x.part"
    found = await converted(sources, Source("wav", channels=1), Target(format="ogg_vorbis"), path)
    before, after = (
        loudest(samples(file, "-ac", "1"))
        for file in (sources.path(Source("wav", channels=1)), path)
    )
    assert after == pytest.approx(before, rel=0.1)
    assert found.channels in (1, 2)


def loudest(pcm: bytes) -> int:
    return max(memoryview(pcm).cast("h"))


# --- what goes wrong


async def arrange(sources: Sources, source: Source | None = None) -> tuple[Path, Plan, float]:
    """A source, its plan to become an Opus, and its length in seconds."""
    source = source or Source("flac")
    facts = await sources.facts(source)
    made = await planned(facts, Target(format="opus"))
    assert made is not None
    return sources.path(source), made, facts.duration_ms / 1000


def script(path: Path, text: str) -> AudioTools:
    """The tools, with an ffmpeg that does this instead."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return AudioTools(ffmpeg=str(path), ffprobe=find_tools().ffprobe)


async def test_progress(sources: Sources, tmp_path: Path) -> None:
    """It is told on the way, only ever grows, and ends at 100."""
    path, made, seconds = await arrange(sources)
    early = "out_time_us=N/A\\nout_time_us=-9\\nout_time_us=250000\\nout_time_us=200000\\n"
    tools = script(tmp_path / "ffmpeg", f"printf '{early}'; exec '{find_tools().ffmpeg}' \"$@\"")
    seen: list[float] = []
    await convert(
        *(path, tmp_path / "x", made, tools),
        duration_s=seconds,
        on_progress=seen.append,
        timeout_s=60,
    )
    assert seen == sorted(set(seen))
    assert seen[0] == pytest.approx(25)
    assert seen[-1] == 100


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077])
async def test_file_obeys_the_umask_and_replaces_an_old_one(
    umask: int, sources: Sources, tmp_path: Path
) -> None:
    """The mode of a new file, and nothing of what lay there before."""
    path, made, seconds = await arrange(sources)
    target = tmp_path / "-i %d ü.part"
    target.write_bytes(b"old" * 1_000_000)
    target.chmod(0o604)
    before = os.umask(umask)
    try:
        await convert(path, target, made, find_tools(), duration_s=seconds, timeout_s=60)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    await check(target, seconds=seconds)


async def test_link_in_the_way_is_not_followed(sources: Sources, tmp_path: Path) -> None:
    """Whatever has the temporary name is removed, never written through."""
    path, made, seconds = await arrange(sources)
    other, target = tmp_path / "other", tmp_path / "x.part"
    other.write_bytes(b"theirs")
    target.symlink_to(other)
    await convert(path, target, made, find_tools(), duration_s=seconds, timeout_s=60)
    assert other.read_bytes() == b"theirs"
    assert not target.is_symlink()


@pytest.mark.parametrize("kind", ["flac", "mp3", "aac", "wav", "vorbis"])
async def test_truncated_source(kind: str, sources: Sources, tmp_path: Path) -> None:
    """Half a song is refused, and leaves nothing: what was verified is not what is there."""
    path, made, seconds = await arrange(sources, Source(kind, seconds=4))
    broken, target = cut(tmp_path / "broken", path), tmp_path / "x.part"
    with pytest.raises(CorruptAudio) as caught:
        await convert(broken, target, made, find_tools(), duration_s=seconds, timeout_s=60)
    assert caught.value.evidence["rule"] in ("truncated", "decode_errors")
    assert caught.value.evidence["expected_s"] == seconds
    assert not target.exists()


async def test_what_is_no_audio(sources: Sources, tmp_path: Path) -> None:
    """A playlist under the song's name is refused and not followed."""
    _, made, seconds = await arrange(sources)
    text = tmp_path / "song"
    text.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n")
    with pytest.raises(CorruptAudio):
        await convert(text, tmp_path / "x", made, find_tools(), duration_s=seconds, timeout_s=60)
    assert not (tmp_path / "x").exists()


async def test_an_mp4_behind_an_id3_tag(tmp_path: Path) -> None:
    """What `verify` takes is converted, though the places in its index do not count the tag."""
    song, target = make_audio(tmp_path / "song", seconds=2, codec="alac"), tmp_path / "x.part"
    song.write_bytes(b"ID3\x03\0\0\0\0\x07\0" + bytes(896) + song.read_bytes())
    facts = await check(song, seconds=2)
    made = await planned(facts, Target(format="flac"))
    assert made is not None
    await convert(song, target, made, find_tools(), duration_s=2, timeout_s=60)
    await check(target, seconds=2)


async def test_tag_behind_the_audio_is_no_damage(sources: Sources, tmp_path: Path) -> None:
    """What `verify` takes is converted, though the decoder stumbles over its end."""
    path, made, seconds = await arrange(sources)
    tagged, target = tmp_path / "tagged", tmp_path / "x.part"
    tagged.write_bytes(path.read_bytes() + b"TAG" + b"Title".ljust(125, b"\0"))
    await convert(tagged, target, made, find_tools(), duration_s=seconds, timeout_s=60)
    await check(target, seconds=seconds)


async def test_cancellation(sources: Sources, tmp_path: Path) -> None:
    """No encoder and no file outlive the task that wanted them."""
    path, made, seconds = await arrange(sources)
    pipe, target = tmp_path / "pid", tmp_path / "x.part"
    os.mkfifo(pipe)
    slow = script(tmp_path / "ffmpeg", f"echo $$ > '{pipe}'; exec sleep 600")
    task = asyncio.create_task(convert(path, target, made, slow, duration_s=seconds, timeout_s=60))
    pid = int(await asyncio.to_thread(pipe.read_text))
    assert target.exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not target.exists()


async def test_timeout(sources: Sources, tmp_path: Path) -> None:
    """A conversion that takes too long is a failed attempt and leaves nothing."""
    path, made, seconds = await arrange(sources)
    slow = script(tmp_path / "ffmpeg", "exec sleep 600")
    with pytest.raises(AttemptFailed) as caught:
        await convert(path, tmp_path / "x", made, slow, duration_s=seconds, timeout_s=0.2)
    assert caught.value.error_type is ErrorType.TIMEOUT
    assert not (tmp_path / "x").exists()


async def test_full_disk(sources: Sources, tmp_path: Path) -> None:
    """ENOSPC, as the kernel gives it to ffmpeg, waits for room and blames no file."""
    path, made, seconds = await arrange(sources, Source("flac", seconds=8))
    target = tmp_path / "x.part"
    with tmpfs(tmp_path, kib=64):
        with pytest.raises(DependencyDown) as caught:
            await convert(path, target, made, find_tools(), duration_s=seconds, timeout_s=60)
        assert caught.value.dependency == "space"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("says", "dependency"),
    [
        ("echo '[out#0] Error writing trailer: Disk quota exceeded' >&2; exit 134", "space"),
        ("echo 'x.part: Read-only file system' >&2; exit 226", "media"),
        ("kill -TERM $$", "ffmpeg"),
        ("exit 255", "ffmpeg"),
    ],
)
async def test_not_the_files_fault(
    says: str, dependency: str, sources: Sources, tmp_path: Path
) -> None:
    """What the disk or a stop from outside does holds the item."""
    path, made, seconds = await arrange(sources)
    tools = script(tmp_path / "ffmpeg", says)
    with pytest.raises(DependencyDown) as caught:
        await convert(path, tmp_path / "x", made, tools, duration_s=seconds, timeout_s=60)
    assert caught.value.dependency == dependency
    assert not (tmp_path / "x").exists()


async def test_killed_by_the_kernel(sources: Sources, tmp_path: Path) -> None:
    """A conversion that is killed twice needs more memory than there is: that file is refused."""
    path, made, seconds = await arrange(sources)
    tools = script(tmp_path / "ffmpeg", "kill -KILL $$")
    with pytest.raises(CorruptAudio, match="killed twice"):
        await convert(path, tmp_path / "x", made, tools, duration_s=seconds, timeout_s=60)
    assert not (tmp_path / "x").exists()


async def test_encoder_that_does_not_open(sources: Sources, tmp_path: Path) -> None:
    """Arguments that an encoder turns down are no reason to block the torrent."""
    path, made, seconds = await arrange(sources)
    wrong = Plan(**{**vars(made), "options": {"b:a": "9000k"}})
    with pytest.raises(AttemptFailed) as caught:
        await convert(path, tmp_path / "x", wrong, find_tools(), duration_s=seconds, timeout_s=60)
    assert caught.value.error_type is ErrorType.UNKNOWN
    assert not (tmp_path / "x").exists()


async def test_no_ffmpeg(sources: Sources, tmp_path: Path) -> None:
    """A missing program is a matter of the installation."""
    path, made, seconds = await arrange(sources)
    none = AudioTools(ffmpeg=str(tmp_path / "none"), ffprobe="")
    with pytest.raises(Misconfigured):
        await convert(path, tmp_path / "x", made, none, duration_s=seconds, timeout_s=60)
    assert not (tmp_path / "x").exists()


async def test_output_is_bounded(sources: Sources, tmp_path: Path) -> None:
    """What unfolds to more than its length allows is stopped, not written on."""
    path, _, seconds = await arrange(sources)
    target = tmp_path / "x.part"
    arguments = (find_tools().ffmpeg, "-v", "error", "-y", "-i", str(path), "-f", "s16le")
    with pytest.raises(CorruptAudio) as caught:
        await write_audio(
            (*arguments, str(target)),
            target,
            find_tools(),
            expected_s=seconds,
            most_bytes=50_000,
            timeout_s=60,
        )
    assert caught.value.evidence["rule"] == "too_large"
    assert not target.exists()


async def test_one_conversion_for_each_core() -> None:
    """A third task waits until one of two slots is free."""
    slots = Slots(2)
    async with slots, slots:
        assert slots.locked()
    assert not slots.locked()
    cores = len(os.sched_getaffinity(0))
    own = Slots()
    for _ in range(cores):
        await own.acquire()
    assert own.locked()


async def test_encoders_are_asked_for_once(tmp_path: Path) -> None:
    """A second question is not put to the program."""
    tools = script(tmp_path / "ffmpeg", f"exec '{find_tools().ffmpeg}' \"$@\"")
    first = await capabilities(tools)
    script(tmp_path / "ffmpeg", "exit 1")
    assert "flac" in first.encoders
    assert "=" not in first.encoders
    assert await capabilities(tools) is first


async def test_ffmpeg_that_names_no_encoder(tmp_path: Path) -> None:
    """Nothing is planned with a program that does not answer, and it is asked again."""
    tools = script(tmp_path / "ffmpeg", "exit 0")
    with pytest.raises(Misconfigured):
        await capabilities(tools)
    script(tmp_path / "ffmpeg", f"exec '{find_tools().ffmpeg}' \"$@\"")
    assert "flac" in (await capabilities(tools)).encoders
