"""The bit rates that each encoder takes, measured with ffmpeg 8.1 and 9.0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_CD_HZ = 44_100

# Frames of constant bit rate have one of these sizes (kbit/s): MPEG-1 from 32 kHz on, MPEG-2 from
# 16 kHz on, and MPEG-2.5.
_MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG25 = (8, 16, 24, 32, 40, 48, 56, 64)


class _Scale(NamedTuple):
    """The kbit/s of ffmpeg's own Vorbis encoder at a quality, for 44.1 kHz stereo."""

    quality: float
    music_kbps: int
    noise_kbps: int


# Measured with ffmpeg 8.1: `music` with pink and brown noise, which have the spectrum of music;
# `noise` with loud white noise, which needs the most of all sounds.
_NATIVE_VORBIS = (
    _Scale(0.3, 25, 38),
    _Scale(0.5, 37, 84),
    _Scale(1, 76, 139),
    _Scale(3, 183, 285),
    _Scale(5, 248, 365),
    _Scale(8, 318, 427),
    _Scale(10, 351, 459),
    _Scale(20, 459, 570),
)


def bounds(encoder: str, channels: int, rate_hz: int) -> tuple[int, int]:
    """The least and the most kbit/s that the encoder takes."""
    if encoder == "libmp3lame":
        steps = mp3_steps(rate_hz)
        return steps[0], steps[-1]
    if encoder == "libopus":
        return 6 * channels, min(510, 256 * channels)
    if encoder == "libvorbis":
        return _libvorbis_bounds(channels, rate_hz)
    if encoder == "vorbis":
        lowest, highest = _NATIVE_VORBIS[0], _NATIVE_VORBIS[-1]
        return (
            1 + lowest.noise_kbps * rate_hz // _CD_HZ,
            highest.noise_kbps * rate_hz // _CD_HZ,
        )
    # The standard's limit: 6,144 bits a channel for each 1,024 samples.
    return 8 + 16 * channels, 6 * channels * rate_hz // 1000


def mp3_steps(rate_hz: int) -> tuple[int, ...]:
    """The kbit/s that frames of this sample rate can have, rising."""
    if rate_hz >= 32_000:
        return _MPEG1
    return _MPEG2 if rate_hz >= 16_000 else _MPEG25


def _libvorbis_bounds(channels: int, rate_hz: int) -> tuple[int, int]:
    """libvorbis does not start outside of them; stereo goes lower, as its channels are coupled."""
    most = {9_000: 32, 15_000: 42, 26_000: 80, 40_000: 150}
    each = next((kbps for below, kbps in most.items() if rate_hz < below), 240)
    if rate_hz < 26_000:
        return 16 * channels, each * channels
    return 45 if channels == 2 else 32 * channels, each * channels


def native_vorbis_quality(kbps: int, rate_hz: int, ceiling_kbps: int | None) -> float:
    """The quality that gives music `kbps`, and no sound more than `ceiling_kbps`.

    ffmpeg's own encoder takes no bit rate.
    """
    quality = _read_off([(s.music_kbps, s.quality) for s in _NATIVE_VORBIS], kbps, rate_hz)
    if ceiling_kbps is None:
        return quality
    noise = [(s.noise_kbps, s.quality) for s in _NATIVE_VORBIS]
    return min(quality, _read_off(noise, ceiling_kbps, rate_hz))


def _read_off(points: Sequence[tuple[int, float]], kbps: int, rate_hz: int) -> float:
    wanted = kbps * _CD_HZ / rate_hz
    for (low, quality), (high, better) in pairwise(points):
        if wanted <= high:
            share = max(0.0, (wanted - low) / (high - low))
            return int((quality + share * (better - quality)) * 10) / 10  # down, never above
    return points[-1][1]
