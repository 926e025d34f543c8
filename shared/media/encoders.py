"""What a file is converted to: decided from its facts alone, before ffmpeg runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.errors import Misconfigured
from shared.media.bitrates import bounds, mp3_steps, native_vorbis_quality
from shared.media.capabilities import Capabilities
from shared.media.formats import (
    Accepted,
    AudioFormat,
    Playable,
    is_dsd,
    is_lossless,
    plays_in_browsers,
)
from shared.media.verify import AudioFacts

# ffmpeg's names of the layouts that every encoder here takes, by the number of channels. Opus
# rejects other ones, as 5.1 with its rear at the sides.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1"}
_CD_HZ = 44_100
_MOST_CHANNELS = 8

_MP3_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
# Browsers play no higher one.
_FLAC_RATES = (384_000, 352_800, 192_000, 176_400, 96_000, 88_200, 48_000, 44_100)
_MOST_OF_DSD_HZ = 96_000
_AAC_RATES = (96_000, 88_200, 64_000, *_MP3_RATES)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What AUDIO_FORMAT, AUDIO_QUALITY and AUDIO_PLAYABLE ask for.

    `quality` is kbit/s, for flac the compression level; None is the format's default: for stereo
    ogg_vorbis 256, opus 160, mp3 320, aac 256 kbit/s, for mono half and for more channels twice as
    much; flac 8. A value that the encoder does not take, with these channels and this sample rate,
    is replaced by the nearest one.
    """

    format: Literal["original"] | AudioFormat
    quality: int | None = None
    playable: Playable = "convert"

    @property
    def accepted(self) -> Accepted:
        """What may become a file that is placed."""
        return Accepted(format=self.format, playable=self.playable)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One conversion: the result, and ffmpeg's arguments for it.

    `encoder` is `copy` when only the container changes. `filters` convert rate and channels for the
    encoder. `bitrate_kbps` is the aim; None: lossless or copied. `tags_from` is where ffmpeg finds
    the source's text tags.
    """

    ext: str
    codec: str
    container: str
    muxer: str
    encoder: str
    sample_rate_hz: int
    channels: int
    bitrate_kbps: int | None
    filters: str | None
    tags_from: str
    options: Mapping[str, str | int | float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class _Format:
    """A format; `codec`, `container` and `ext` as `verify` names them."""

    codec: str
    container: str
    ext: str
    muxer: str
    encoders: tuple[str, ...]  # the best first
    default: int
    most_rate_hz: int
    rates_hz: tuple[int, ...]  # falling: the rates for a source beyond `most_rate_hz`
    any_rate: bool = False
    most_channels: int = 6


_FORMATS: Mapping[AudioFormat, _Format] = {
    "ogg_vorbis": _Format(
        codec="vorbis",
        container="ogg",
        ext="ogg",
        muxer="ogg",
        # Static builds often lack libvorbis; all have ffmpeg's own encoder.
        encoders=("libvorbis", "vorbis"),
        default=256,
        most_rate_hz=48_000,
        rates_hz=(48_000, 44_100),
        any_rate=True,
    ),
    "opus": _Format(
        codec="opus",
        container="ogg",
        ext="opus",
        muxer="opus",
        encoders=("libopus",),
        default=160,
        most_rate_hz=48_000,
        rates_hz=(48_000,),
    ),
    "mp3": _Format(
        codec="mp3",
        container="mp3",
        ext="mp3",
        muxer="mp3",
        encoders=("libmp3lame",),
        default=320,
        most_rate_hz=48_000,
        rates_hz=_MP3_RATES,
        most_channels=2,
    ),
    "flac": _Format(
        codec="flac",
        container="flac",
        ext="flac",
        muxer="flac",
        encoders=("flac",),
        default=8,
        most_rate_hz=_FLAC_RATES[0],
        rates_hz=_FLAC_RATES,
        any_rate=True,
        most_channels=_MOST_CHANNELS,
    ),
    "aac": _Format(
        codec="aac",
        container="mp4",
        ext="m4a",
        muxer="ipod",
        encoders=("aac", "libfdk_aac"),
        default=256,
        most_rate_hz=96_000,
        rates_hz=_AAC_RATES,
    ),
}

# What browsers play, and in which format's container if not in its own.
_COPIED: Mapping[str, AudioFormat] = {
    "aac": "aac",
    "mp3": "mp3",
    "opus": "opus",
    "vorbis": "ogg_vorbis",
}


def encoder_of(format_: AudioFormat, has: Capabilities) -> str:
    """The best encoder that this ffmpeg has for the format.

    Raises:
        Misconfigured: it has none.
    """
    wanted = _FORMATS[format_].encoders
    for name in wanted:
        if name in has.encoders:
            return name
    raise Misconfigured(
        "ffmpeg",
        f"AUDIO_FORMAT={format_} needs an ffmpeg with {' or '.join(wanted)}, and this one lacks it:"
        " install another, or choose another AUDIO_FORMAT",
    )


def tags_of(container: str) -> str:
    """Where ffmpeg finds a file's tags, for `map_metadata`: in Ogg at the stream."""
    return "0:s:a:0" if container == "ogg" else "0"


def plan(facts: AudioFacts, target: Target, has: Capabilities) -> Plan | None:
    """How the file of these facts is converted to `target`; None: it stays as it is.

    It stays when `target` is `original`; when it has that format already, at any bit rate; and when
    a conversion could not keep its quality: lossy audio never becomes lossless, nor gets a higher
    bit rate than it has. Sample rate and channels are not raised, except for Opus, which has only
    48 kHz, and for mono where the encoder has only stereo.

    With AUDIO_PLAYABLE=convert a file that browsers do not play never stays. If `target` leaves it,
    what they play in another container is copied into that; the rest becomes FLAC if it is
    lossless, otherwise Opus, at the encoder's least where that is more than the source has. With
    `refuse` it stays, and must not be placed.

    Raises:
        Misconfigured: this ffmpeg lacks the encoder.
    """
    planned = _to_target(facts, target, has)
    if planned is None and target.playable == "convert" and not plays(facts):
        return _for_browsers(facts, has)
    return planned


def plays(facts: AudioFacts) -> bool:
    """Whether browsers play the file as it is."""
    return plays_in_browsers(facts.container, facts.codec, facts.sample_bits)


def _to_target(facts: AudioFacts, target: Target, has: Capabilities) -> Plan | None:
    if target.format == "original" or facts.channels > _MOST_CHANNELS:
        return None
    form = _FORMATS[target.format]
    if (facts.codec, facts.container) == (form.codec, form.container):
        return None
    if target.format == "flac":
        return _to_flac(facts, form, target, encoder_of("flac", has))
    if facts.codec == form.codec:
        return _in_another_container(facts, form)
    return _to_lossy(facts, form, target, encoder_of(target.format, has))


def _for_browsers(facts: AudioFacts, has: Capabilities) -> Plan:
    if facts.codec in _COPIED:
        return _in_another_container(facts, _FORMATS[_COPIED[facts.codec]])
    if facts.channels <= _MOST_CHANNELS:
        flac = Target(format="flac")
        planned = _to_flac(facts, _FORMATS["flac"], flac, encoder_of("flac", has))
        if planned is not None:
            return planned
    # Every ffmpeg has an AAC encoder of its own.
    format_: AudioFormat = "opus" if "libopus" in has.encoders else "aac"
    target, encoder = Target(format=format_), encoder_of(format_, has)
    planned = _to_lossy(facts, _FORMATS[format_], target, encoder, required=True)
    assert planned is not None, "a required conversion is planned"
    return planned


def _to_flac(facts: AudioFacts, form: _Format, target: Target, encoder: str) -> Plan | None:
    """Rate, channels and bit depth stay, except for a rate that no music needs."""
    if not is_lossless(facts.codec):
        return None
    rate_hz, filters = flac_rate(facts)
    level = form.default if target.quality is None else min(target.quality, 12)
    return Plan(
        ext=form.ext,
        codec=form.codec,
        container=form.container,
        muxer=form.muxer,
        encoder=encoder,
        sample_rate_hz=rate_hz,
        channels=facts.channels,
        bitrate_kbps=None,
        filters=filters,
        tags_from=tags_of(facts.container),
        options={"compression_level": level},
    )


def flac_rate(facts: AudioFacts) -> tuple[int, str | None]:
    """The rate that a FLAC of lossless audio gets, and the filter for it; None: it is the source's.

    Otherwise it is the largest below the limit, by a whole ratio where there is one. DSD is decoded
    at an eighth of its rate, of which most is noise that it shifts beyond hearing.
    """
    most_hz = _MOST_OF_DSD_HZ if is_dsd(facts.codec) else _FLAC_RATES[0]
    if facts.sample_rate_hz <= most_hz:
        return facts.sample_rate_hz, None
    below = [rate for rate in _FLAC_RATES if rate <= most_hz]
    rate_hz = next((rate for rate in below if facts.sample_rate_hz % rate == 0), below[0])
    return rate_hz, f"aformat=sample_rates={rate_hz}"


def _to_lossy(
    facts: AudioFacts, form: _Format, target: Target, encoder: str, *, required: bool = False
) -> Plan | None:
    """None: the source is below what the encoder takes, and `required` is not set."""
    channels = _channels(facts.channels, form, encoder)
    rate_hz = _sample_rate(facts.sample_rate_hz, form)
    if rate_hz is None and required:
        rate_hz = min(form.rates_hz)
    if rate_hz is None:
        return None
    kbps = _bitrate(facts, form, target, encoder, channels=channels, rate_hz=rate_hz)
    if kbps is None and required:
        kbps, _ = bounds(encoder, channels, rate_hz)
    if kbps is None:
        return None
    ceiling = None if is_lossless(facts.codec) else facts.bitrate_kbps
    return Plan(
        ext=form.ext,
        codec=form.codec,
        container=form.container,
        muxer=form.muxer,
        encoder=encoder,
        sample_rate_hz=rate_hz,
        channels=channels,
        bitrate_kbps=kbps,
        filters=_filters(facts.channels, channels, rate_hz),
        tags_from=tags_of(facts.container),
        options=_options(encoder, kbps, rate_hz, ceiling_kbps=ceiling),
    )


def _in_another_container(facts: AudioFacts, form: _Format) -> Plan:
    """It is copied: encoding it again would lose quality."""
    return Plan(
        ext=form.ext,
        codec=form.codec,
        container=form.container,
        muxer=form.muxer,
        encoder="copy",
        sample_rate_hz=facts.sample_rate_hz,
        channels=facts.channels,
        bitrate_kbps=None,
        filters=None,
        tags_from=tags_of(facts.container),
    )


def _channels(source: int, form: _Format, encoder: str) -> int:
    if encoder == "vorbis":
        return 2  # ffmpeg's own encoder has stereo only: mono is doubled, 5.1 mixed down
    return min(source, form.most_channels)


def _sample_rate(source_hz: int, form: _Format) -> int | None:
    """The source's rate, or the best below it; None if all rates of the encoder are above."""
    if form.codec == "opus":
        return 48_000  # the only rate of Opus
    if form.any_rate and source_hz <= form.most_rate_hz:
        return source_hz
    below = [rate for rate in form.rates_hz if rate <= source_hz]
    # A whole ratio is best: 176.4 kHz becomes 44.1 and not 48. But not below what is audible.
    whole = [rate for rate in below if source_hz % rate == 0 and rate >= _CD_HZ]
    return max(whole or below, default=None)


def _bitrate(
    facts: AudioFacts,
    form: _Format,
    target: Target,
    encoder: str,
    *,
    channels: int,
    rate_hz: int,
) -> int | None:
    """kbit/s to aim at; None if the encoder's least is more than a lossy source has."""
    wanted = target.quality or _default_kbps(form, channels)
    least, most = bounds(encoder, channels, rate_hz)
    if not is_lossless(facts.codec):
        if facts.bitrate_kbps < least:
            return None
        wanted = min(wanted, facts.bitrate_kbps)
    kbps = max(least, min(wanted, most))
    if encoder == "libmp3lame":
        return max(step for step in mp3_steps(rate_hz) if step <= kbps)
    return kbps


def _default_kbps(form: _Format, channels: int) -> int:
    if channels == 2:
        return form.default
    return form.default // 2 if channels == 1 else form.default * 2


def _filters(source_channels: int, channels: int, rate_hz: int) -> str:
    layout = _LAYOUTS[channels]
    # ffmpeg's own mix makes both channels quieter than the mono source.
    double = "pan=stereo|c0=c0|c1=c0," if (source_channels, channels) == (1, 2) else ""
    return f"{double}aformat=sample_rates={rate_hz}:channel_layouts={layout}"


def _options(
    encoder: str, kbps: int, rate_hz: int, *, ceiling_kbps: int | None
) -> Mapping[str, str | int | float]:
    if encoder == "vorbis":
        return {"strict": "-2", "q:a": native_vorbis_quality(kbps, rate_hz, ceiling_kbps)}
    if encoder in ("aac", "libfdk_aac"):
        # With the index in front, a player over HTTP starts before it has all of the file.
        return {"b:a": f"{kbps}k", "movflags": "+faststart"}
    if ceiling_kbps is not None and encoder == "libopus":
        # Unconstrained it gives pure tones a third more than asked for.
        return {"b:a": f"{kbps}k", "vbr": "constrained"}
    if ceiling_kbps is not None and encoder == "libvorbis":
        return {"b:a": f"{kbps}k", "maxrate": f"{kbps}k"}
    return {"b:a": f"{kbps}k"}
