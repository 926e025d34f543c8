"""What is converted to what is decided from the facts: nothing is ever made better than it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Misconfigured
from shared.media.capabilities import Capabilities
from shared.media.encoders import Plan, Target, encoder_of, plan
from shared.media.formats import AudioFormat, plays_in_browsers
from shared.media.verify import AudioFacts

FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
Format: TypeAlias = Literal["original"] | AudioFormat
COMMON = frozenset({"libopus", "libmp3lame", "flac", "aac", "vorbis"})
STATIC = Capabilities(encoders=COMMON)
FULL = Capabilities(encoders=COMMON | {"libvorbis", "libfdk_aac"})
# codec -> container and extension, as `verify` names them.
SOURCES = {
    "flac": ("flac", "flac"),
    "alac": ("mp4", "m4a"),
    "pcm_s24le": ("wav", "wav"),
    "wmalossless": ("asf", "wma"),
    "mp3": ("mp3", "mp3"),
    "aac": ("mp4", "m4a"),
    "vorbis": ("ogg", "ogg"),
    "opus": ("ogg", "opus"),
    "wmav2": ("asf", "wma"),
    "wmavoice": ("asf", "wma"),
    "pcm_f64le": ("wav", "wav"),
}
LOSSLESS = ("flac", "alac", "pcm_s24le", "pcm_f64le", "wmalossless")
# What did not play in Chromium.
NOT_PLAYED = ("alac", "wmalossless", "wmav2", "wmavoice", "pcm_f64le")
ITS_OWN = {"flac": "flac", "mp3": "mp3", "aac": "aac", "vorbis": "ogg_vorbis", "opus": "opus"}


def facts(
    codec: str = "flac",
    *,
    container: str | None = None,
    rate_hz: int = 44_100,
    channels: int = 2,
    kbps: int = 900,
) -> AudioFacts:
    return AudioFacts(
        ext=SOURCES[codec][1],
        codec=codec,
        container=container or SOURCES[codec][0],
        duration_ms=240_000,
        bitrate_kbps=kbps,
        sample_rate_hz=rate_hz,
        channels=channels,
        size_bytes=kbps * 30_000,
        sha256="0" * 64,
    )


def made(
    source: AudioFacts, format_: AudioFormat, quality: int | None = None, has: Capabilities = FULL
) -> Plan:
    found = plan(source, Target(format=format_, quality=quality), has)
    assert found is not None
    return found


@pytest.mark.parametrize("codec", [c for c in SOURCES if c not in NOT_PLAYED])
def test_original_is_kept(codec: str) -> None:
    """Without AUDIO_FORMAT nothing is touched that browsers play."""
    assert plan(facts(codec), Target(format="original"), FULL) is None


@pytest.mark.parametrize("codec", NOT_PLAYED)
@pytest.mark.parametrize("has", [STATIC, FULL])
def test_what_browsers_do_not_play_is_converted(codec: str, has: Capabilities) -> None:
    """Lossless to FLAC with its rate and channels, lossy to Opus with at most its bit rate."""
    source = facts(codec, rate_hz=96_000, channels=2, kbps=100)
    found = plan(source, Target(format="original"), has)
    assert found is not None
    if codec in LOSSLESS:
        assert (found.codec, found.sample_rate_hz, found.channels) == ("flac", 96_000, 2)
        assert (found.filters, found.options) == (None, {"compression_level": 8})
    else:
        assert (found.codec, found.ext, found.bitrate_kbps) == ("opus", "opus", 100)


@pytest.mark.parametrize("codec", NOT_PLAYED)
@pytest.mark.parametrize("format_", ["original", *FORMATS])
@pytest.mark.parametrize(
    "size", [(6_000, 1, 4), (8_000, 2, 5), (768_000, 8, 9_000)], ids=["slow", "small", "large"]
)
@pytest.mark.parametrize("encoders", [FULL.encoders, COMMON - {"libopus"}])
def test_what_browsers_do_not_play_never_stays(
    codec: str, format_: Format, size: tuple[int, int, int], encoders: frozenset[str]
) -> None:
    """Also where AUDIO_FORMAT would leave it, or a build has no Opus: at the encoder's least."""
    if format_ == "opus" and "libopus" not in encoders:
        return  # the setting needs another ffmpeg
    rate_hz, channels, kbps = size
    source = facts(codec, rate_hz=rate_hz, channels=channels, kbps=kbps)
    found = plan(source, Target(format=format_), Capabilities(encoders=encoders))
    assert found is not None
    assert plays_in_browsers(found.container, found.codec, None)
    if codec not in LOSSLESS:
        assert found.bitrate_kbps is not None
        assert found.bitrate_kbps <= max(kbps, 8 + 16 * found.channels)


@pytest.mark.parametrize("format_", ["original", "flac"])
def test_flac_with_32_bits_is_encoded_again(format_: Format) -> None:
    """Firefox does not play it; 24 bits, and a file that does not say, stay."""
    for bits, planned in ((None, False), (16, False), (24, False), (32, True)):
        source = replace(facts("flac"), sample_bits=bits)
        assert (plan(source, Target(format=format_), FULL) is not None) is planned, bits


def test_a_setting_comes_before_what_browsers_need() -> None:
    """AUDIO_FORMAT=mp3 makes an MP3 of Windows Media, not an Opus; FLAC cannot be made of it."""
    assert made(facts("wmav2", kbps=128), "mp3").codec == "mp3"
    assert made(facts("alac"), "aac").codec == "aac"
    assert made(facts("wmav2", kbps=128), "flac").codec == "opus"


@pytest.mark.parametrize(("codec", "format_"), ITS_OWN.items())
def test_already_in_the_target(codec: str, format_: AudioFormat) -> None:
    """A file in the target's format stays, however much better or worse than AUDIO_QUALITY."""
    quality = None if format_ == "flac" else 64
    for kbps in (40, 1000):
        source = facts(codec, kbps=kbps, rate_hz=192_000, channels=6)
        assert plan(source, Target(format=format_, quality=quality), FULL) is None


@pytest.mark.parametrize("codec", [c for c in SOURCES if c not in (*LOSSLESS, *NOT_PLAYED)])
def test_lossy_never_becomes_lossless(codec: str) -> None:
    """A FLAC of an MP3 would be larger and no better."""
    assert plan(facts(codec), Target(format="flac"), FULL) is None


def test_the_same_codec_elsewhere() -> None:
    """Raw AAC is put into MP4 untouched; FLAC in Ogg is encoded again, which loses nothing."""
    raw = made(facts("aac", container="adts", kbps=128), "aac")
    assert (raw.encoder, raw.filters, raw.bitrate_kbps) == ("copy", None, None)
    assert made(facts("flac", container="ogg"), "flac").encoder == "flac"


@pytest.mark.parametrize(
    ("format_", "expected"),
    [("ogg_vorbis", 256), ("opus", 160), ("mp3", 320), ("aac", 256)],
)
def test_default_quality(format_: AudioFormat, expected: int) -> None:
    """The defaults are for stereo; mono needs half."""
    assert made(facts(), format_).bitrate_kbps == expected
    # The most that libvorbis takes for one channel is more than half, so mono gets half here, too.
    assert made(facts(channels=1), format_).bitrate_kbps == expected // 2


@pytest.mark.parametrize(
    ("format_", "expected"), [("ogg_vorbis", 100), ("mp3", 96), ("aac", 100), ("opus", 100)]
)
@pytest.mark.parametrize("quality", [None, 320])
def test_lossy_source_is_the_limit(
    format_: AudioFormat, expected: int, quality: int | None
) -> None:
    """100 kbit/s of music do not become 320, whatever was asked for."""
    assert made(facts("wmav2", kbps=100), format_, quality).bitrate_kbps == expected


def test_flac_level() -> None:
    """AUDIO_QUALITY is the compression level; 0 is one."""
    assert made(facts("alac"), "flac").options == {"compression_level": 8}
    assert made(facts("alac"), "flac", 0).options == {"compression_level": 0}


@pytest.mark.parametrize(
    ("format_", "source", "quality", "expected"),
    [
        ("mp3", facts(), 500, 320),
        ("mp3", facts(), 200, 192),
        ("mp3", facts(rate_hz=22_050), 320, 160),
        ("mp3", facts(rate_hz=8_000), 320, 64),
        ("opus", facts(), 512, 510),
        ("opus", facts(channels=1), 512, 256),
        ("ogg_vorbis", facts(channels=1), 500, 240),
        ("ogg_vorbis", facts(), 32, 45),
        ("ogg_vorbis", facts(rate_hz=8_000), 256, 64),
        ("aac", facts(channels=1), 512, 264),
    ],
)
def test_limits_of_the_encoders(
    format_: AudioFormat, source: AudioFacts, quality: int, expected: int
) -> None:
    """What an encoder would refuse becomes the nearest that it takes."""
    assert made(source, format_, quality).bitrate_kbps == expected


@pytest.mark.parametrize(
    ("format_", "rate_hz", "expected"),
    [
        ("opus", 44_100, 48_000),
        ("opus", 192_000, 48_000),
        ("opus", 8_000, 48_000),
        ("mp3", 44_100, 44_100),
        ("mp3", 88_200, 44_100),
        ("mp3", 96_000, 48_000),
        ("mp3", 176_400, 44_100),
        ("mp3", 64_000, 48_000),
        ("mp3", 37_800, 32_000),
        ("ogg_vorbis", 37_800, 37_800),
        ("ogg_vorbis", 96_000, 48_000),
        ("ogg_vorbis", 352_800, 44_100),
        ("aac", 96_000, 96_000),
        ("aac", 192_000, 96_000),
        ("aac", 176_400, 88_200),
    ],
)
def test_sample_rates(format_: AudioFormat, rate_hz: int, expected: int) -> None:
    """The nearest rate that is not above, by a whole ratio where one is in sight."""
    assert made(facts(rate_hz=rate_hz), format_).sample_rate_hz == expected


def test_a_rate_below_all_stays() -> None:
    """MP3 begins at 8 kHz: something slower is not brought up to it."""
    assert plan(facts(rate_hz=6_000), Target(format="mp3"), FULL) is None


@pytest.mark.parametrize(
    ("format_", "has", "channels", "expected"),
    [
        ("mp3", FULL, 6, 2),
        ("mp3", FULL, 1, 1),
        ("aac", FULL, 6, 6),
        ("opus", FULL, 8, 6),
        ("ogg_vorbis", FULL, 6, 6),
        ("ogg_vorbis", FULL, 1, 1),
        ("ogg_vorbis", STATIC, 6, 2),
        ("ogg_vorbis", STATIC, 1, 2),
    ],
)
def test_channels(format_: AudioFormat, has: Capabilities, channels: int, expected: int) -> None:
    """Mixed down where the format or the encoder has no more; only the one of two doubles."""
    assert made(facts(channels=channels), format_, has=has).channels == expected


def test_flac_keeps_eight_channels() -> None:
    """What is lossless stays what it is."""
    assert made(facts("alac", channels=8, rate_hz=192_000), "flac").channels == 8


def test_a_source_below_what_the_encoder_can_do_stays() -> None:
    """24 kbit/s of speech are not blown up to the least that an encoder makes."""
    for format_ in ("mp3", "ogg_vorbis", "aac"):
        assert plan(facts("opus", kbps=24), Target(format=format_), FULL) is None


def test_the_best_encoder_there_is() -> None:
    """libvorbis before ffmpeg's own, ffmpeg's AAC before libfdk; nothing at all is said."""
    assert encoder_of("ogg_vorbis", FULL) == "libvorbis"
    assert encoder_of("ogg_vorbis", STATIC) == "vorbis"
    assert encoder_of("aac", FULL) == "aac"
    assert encoder_of("aac", Capabilities(encoders=frozenset({"libfdk_aac"}))) == "libfdk_aac"
    with pytest.raises(Misconfigured, match="AUDIO_FORMAT=mp3 needs an ffmpeg with libmp3lame"):
        encoder_of("mp3", Capabilities(encoders=frozenset({"mp3"})))


@given(
    codec=st.sampled_from(sorted(SOURCES)),
    format_=st.sampled_from(["original", *FORMATS]),
    quality=st.none() | st.integers(32, 512),
    rate_hz=st.sampled_from([6_000, 8_000, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000])
    | st.integers(1_000, 800_000),
    channels=st.integers(1, 10),
    kbps=st.integers(1, 320) | st.integers(320, 9_000),
    has=st.sampled_from([STATIC, FULL]),
)
def test_never_upsampled(
    codec: str,
    *,
    format_: Format,
    quality: int | None,
    rate_hz: int,
    channels: int,
    kbps: int,
    has: Capabilities,
) -> None:
    """No plan raises a bit rate, a sample rate or a number of channels, whatever is asked for."""
    source = facts(codec, rate_hz=rate_hz, channels=channels, kbps=kbps)
    found = plan(source, Target(format=format_, quality=quality), has)
    if found is None:
        return
    if codec not in LOSSLESS:
        assert found.codec != "flac"
        least = 0 if plays_in_browsers(source.container, codec, None) else 6 * found.channels
        assert found.encoder == "copy" or (found.bitrate_kbps or 0) <= max(kbps, least)
    if found.codec != "opus":
        assert found.sample_rate_hz <= rate_hz
    if found.encoder != "vorbis":
        assert found.channels <= channels
    # What browsers need instead has the default quality.
    asked = ITS_OWN[found.codec] == format_ and channels <= 8
    if asked and quality is not None and found.bitrate_kbps is not None and quality >= 200:
        assert found.bitrate_kbps <= quality
