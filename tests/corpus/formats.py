"""Containers and codecs: what is taken, and what is refused on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.corpus.case import Case
from tests.support import rare_formats
from tests.support.conversion import run

_SECONDS = 2.0
_SOUND = f"aevalsrc=0.2*sin(600*PI*t)|0.2*sin(780*PI*t):s=44100:c=stereo:d={_SECONDS}"
_PICTURES = f"testsrc=s=64x64:r=10:d={_SECONDS}"


def encoded(folder: Path, *, name: str, options: Sequence[str], video: bool = False) -> Path:
    """A file of two tones."""
    path = folder / name
    pictures = ("-f", "lavfi", "-i", _PICTURES, "-c:v", "mpeg4") if video else ()
    sound = ("-f", "lavfi", "-i", _SOUND)
    run(*sound, *pictures, "-c:a", *options, str(path))
    return path


def written(folder: Path, *, name: str, content: Callable[[float], bytes]) -> Path:
    """A file of a format that no ffmpeg writes."""
    path = folder / name
    path.write_bytes(content(_SECONDS))
    return path


def _whole(name: str, *options: str) -> Case:
    return Case(
        name=name,
        make=partial(encoded, name=name, options=options),
        expected_ms=round(_SECONDS * 1000),
        verdict="whole",
    )


def _written(name: str, content: Callable[[float], bytes]) -> Case:
    return Case(
        name=name,
        make=partial(written, name=name, content=content),
        expected_ms=round(_SECONDS * 1000),
        verdict="whole",
    )


def _refused(name: str, rule: str, *options: str, video: bool = False) -> Case:
    return Case(
        name=name,
        make=partial(encoded, name=name, options=options, video=video),
        expected_ms=round(_SECONDS * 1000),
        verdict=rule,
    )


CASES: Sequence[Case] = (
    _whole("wavpack.wv", "wavpack", "-sample_fmt", "s16p"),
    _whole("aiff.aiff", "pcm_s16be"),
    _whole("aiff-little-endian.aifc", "pcm_s16le", "-f", "aiff"),
    _whole("true-audio.tta", "tta"),
    _whole("samples.caf", "pcm_s24be"),
    _whole("alac.caf", "alac"),
    _whole("wave64.w64", "pcm_s16le"),
    _whole("rf64.wav", "pcm_s16le", "-rf64", "always"),
    _whole("flac.mka", "flac", "-f", "matroska"),
    _whole("opus.mka", "libopus", "-f", "matroska"),
    _whole("flac.mp4", "flac", "-sample_fmt", "s16", "-strict", "-2", "-f", "mp4"),
    _whole("opus.mp4", "libopus", "-strict", "-2", "-f", "mp4"),
    _whole("layer-2.mp2", "mp2"),
    _whole("dolby.ac3", "ac3"),
    _whole("dts.dts", "dca", "-strict", "-2"),
    _whole("dts.wav", "dca", "-strict", "-2"),
    _written("dsd.dsf", rare_formats.dsf),
    _written("dsd.dff", rare_formats.dsdiff),
    _written("monkeys-audio.ape", rare_formats.ape),
    _written("shorten.shn", rare_formats.shorten),
    Case(
        name="musepack.mpc",
        make=partial(written, name="musepack.mpc", content=lambda _: rare_formats.musepack()),
        expected_ms=4000,
        verdict="whole",
    ),
    _refused("video.mkv", "video", "libopus", video=True),
    _refused("video.mp4", "video", "aac", video=True),
    _refused("sun.au", "codec_not_allowed", "pcm_s16be"),
)
