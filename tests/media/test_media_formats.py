"""Formats that browsers do not play: each becomes one that they do, with a rate that fits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from shared.errors import CorruptAudio
from shared.media.capabilities import capabilities
from shared.media.convert import convert
from shared.media.cut import cut
from shared.media.encoders import Target, plan, plays
from shared.media.formats import HYBRID
from shared.media.tools import find_tools
from shared.media.variants import variant_of
from shared.media.verify import AudioFacts, verify
from tests.corpus.formats import CASES
from tests.support import rare_formats
from tests.support.conversion import probed, run, samples

TAKEN = {case.name: case for case in CASES if case.verdict == "whole"}
LENGTH_MS = 2000


async def facts_of(path: Path) -> AudioFacts:
    return await verify(path, expected_ms=LENGTH_MS, tolerance_s=0.1, tools=find_tools())


async def playable(path: Path, target: Target, folder: Path) -> tuple[AudioFacts, Path]:
    """The file as it is placed."""
    facts = await facts_of(path)
    made = plan(facts, target, await capabilities(find_tools()))
    if made is None:
        return facts, path
    result = folder / f"x.{made.ext}"
    length_s = facts.duration_ms / 1000
    await convert(path, result, made, find_tools(), duration_s=length_s, timeout_s=60)
    return await facts_of(result), result


# What becomes of each: codec and rate. The rest of the corpus is converted in the unit tests.
BECOMES = {
    "wavpack.wv": ("flac", 44_100),
    "aiff.aiff": ("flac", 44_100),
    "true-audio.tta": ("flac", 44_100),
    "alac.caf": ("flac", 44_100),
    "wave64.w64": ("flac", 44_100),
    "rf64.wav": ("flac", 44_100),
    "flac.mka": ("flac", 44_100),
    "opus.mka": ("opus", 48_000),
    "dsd.dsf": ("flac", 88_200),
    "dsd.dff": ("flac", 88_200),
    "monkeys-audio.ape": ("flac", 44_100),
    "shorten.shn": ("flac", 44_100),
    "dts.wav": ("opus", 48_000),
    "layer-2.mp2": ("opus", 48_000),
    # Browsers play both.
    "flac.mp4": ("flac", 44_100),
    "opus.mp4": ("opus", 48_000),
}


@pytest.mark.parametrize("name", BECOMES)
async def test_what_is_taken_becomes_playable(name: str, tmp_path: Path) -> None:
    """With AUDIO_FORMAT=original: whole before, and whole and played by browsers after."""
    path = TAKEN[name].make(tmp_path)
    facts, result = await playable(path, Target(format="original"), tmp_path)
    assert (facts.codec, facts.sample_rate_hz) == BECOMES[name]
    assert plays(facts)
    if name in ("flac.mp4", "opus.mp4"):
        assert (result, facts.ext) == (path, "m4a")


@pytest.mark.parametrize("name", ["wavpack.wv", "aiff.aiff", "shorten.shn", "true-audio.tta"])
async def test_no_sample_changes(name: str, tmp_path: Path) -> None:
    path = TAKEN[name].make(tmp_path)
    _, result = await playable(path, Target(format="original"), tmp_path)
    assert samples(result) == samples(path)


async def test_opus_is_copied_out_of_matroska(tmp_path: Path) -> None:
    """It is not encoded again: its packets are the same."""
    path = TAKEN["opus.mka"].make(tmp_path)
    _, result = await playable(path, Target(format="flac"), tmp_path)

    def packets(of: Path) -> bytes:
        return run("-i", str(of), "-c", "copy", "-f", "data", "-map", "0:a", "-")

    assert packets(result) == packets(path)


@pytest.mark.parametrize(
    ("rate_hz", "expected"), [(2_822_400, 88_200), (5_644_800, 88_200), (6_144_000, 96_000)]
)
async def test_dsd_gets_the_rate_of_what_is_heard(
    rate_hz: int, expected: int, tmp_path: Path
) -> None:
    """Decoded it has an eighth of its own: 353 to 768 kHz, more than FLAC takes."""
    path = tmp_path / "x.dsf"
    path.write_bytes(rare_formats.dsf(LENGTH_MS / 1000, rate_hz=rate_hz))
    facts, result = await playable(path, Target(format="original"), tmp_path)
    assert (facts.codec, facts.sample_rate_hz) == ("flac", expected)
    assert probed(result)["streams"][0]["bits_per_raw_sample"] == "24"


@pytest.mark.parametrize(("format_", "rate_hz"), [("mp3", 44_100), ("aac", 88_200)])
async def test_dsd_in_a_lossy_format(format_: str, rate_hz: int, tmp_path: Path) -> None:
    """AUDIO_FORMAT takes it by a whole ratio."""
    path = TAKEN["dsd.dsf"].make(tmp_path)
    facts, _ = await playable(path, Target(format=format_), tmp_path)  # type: ignore[arg-type]
    assert (facts.codec, facts.sample_rate_hz) == (format_, rate_hz)


async def test_a_track_is_cut_out_of_a_disc_of_dsd(tmp_path: Path) -> None:
    """As Super Audio CDs are copied: one file with a sheet. Its rate is more than FLAC takes."""
    disc = tmp_path / "x.dff"
    disc.write_bytes(rare_formats.dsdiff(4, rate_hz=5_644_800))
    facts = await verify(disc, expected_ms=4000, tolerance_s=0.1, tools=find_tools())
    made = await cut(
        disc,
        tmp_path / "track",
        start_s=1.0,
        end_s=3.0,
        facts=facts,
        tools=find_tools(),
        timeout_s=60,
    )
    assert (made.codec, made.sample_rate_hz, made.duration_ms) == ("flac", 88_200, 2000)


def _tag(content: bytes) -> bytes:
    return content + b"TAG" + b"Title".ljust(125, b"\0")


@pytest.mark.parametrize("name", ["wavpack.wv", "dolby.ac3", "dts.dts", "monkeys-audio.ape"])
async def test_a_tag_behind_the_audio_is_no_damage(name: str, tmp_path: Path) -> None:
    """ID3v1, as old programs hang it behind any file; it is converted all the same."""
    path = TAKEN[name].make(tmp_path)
    path.write_bytes(_tag(path.read_bytes()))
    facts, _ = await playable(path, Target(format="original"), tmp_path)
    assert plays(facts)


@pytest.mark.parametrize("name", ["wavpack.wv", "aiff.aiff", "dsd.dsf", "true-audio.tta"])
async def test_an_incomplete_file_is_refused(name: str, tmp_path: Path) -> None:
    """The new formats are verified as the others are."""
    path = TAKEN[name].make(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(CorruptAudio) as caught:
        await facts_of(path)
    assert caught.value.evidence["rule"] in ("decode_errors", "truncated")


def test_what_ffprobe_does_not_tell(tmp_path: Path) -> None:
    """RF64 is not played by Firefox, and a hybrid WavPack file is lossy by itself."""
    path = tmp_path / "x"
    name = partial(variant_of, path)
    path.write_bytes(b"wvpk" + bytes(20) + (1 << 3).to_bytes(4, "little"))
    assert name("wv", "wavpack")[1] == HYBRID
    path.write_bytes(b"wvpk" + bytes(24))
    assert name("wv", "wavpack")[1] == "wavpack"
    path.write_bytes(b"RF64" + bytes(40))
    container, _ = name("wav", "pcm_s16le")
    assert container is not None
    assert container.name == "rf64"
