"""Generated audio: tones of an exact length, for the sample and for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import ffmpeg

from shared.errors import DownloadsError
from shared.media.tools import AudioTools


class ToneFailed(DownloadsError):
    """A tone could not be made: the disk is full, or this ffmpeg lacks an encoder."""


ToneCodec = Literal["flac", "mp3", "opus", "vorbis", "aac", "alac", "wav"]

_OPTIONS: Mapping[ToneCodec, Mapping[str, object]] = {
    "flac": {"c:a": "flac", "f": "flac"},
    "mp3": {"c:a": "libmp3lame", "b:a": "128k", "f": "mp3"},
    "opus": {"c:a": "libopus", "b:a": "64k", "f": "ogg"},
    # ffmpeg's own encoder, because static builds lack libvorbis; it supports stereo only.
    "vorbis": {"c:a": "vorbis", "strict": "-2", "ac": 2, "f": "ogg"},
    "aac": {"c:a": "aac", "b:a": "128k", "f": "ipod"},
    "alac": {"c:a": "alac", "f": "ipod"},
    "wav": {"c:a": "pcm_s16le", "f": "wav"},
}
_WITH_COVER = ("flac", "mp3", "aac", "alac")


def make_tone(
    path: Path,
    *,
    seconds: float,
    codec: ToneCodec,
    frequency: int,
    tools: AudioTools,
    cover: bool = False,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a sine tone of exactly `seconds`, with its tags and a cover picture if asked.

    Raises:
        ToneFailed: ffmpeg could not write it.
        ValueError: this container cannot have a cover.
    """
    sound = f"sine=frequency={frequency}:duration={seconds}:sample_rate=44100"
    inputs = [ffmpeg.input(sound, f="lavfi")]
    options: dict[str, object] = dict(_OPTIONS[codec])
    if cover:
        if codec not in _WITH_COVER:
            raise ValueError(f"{codec} files are written without a cover")
        # The source has one frame: `-frames:v 1` would end the sound with it.
        inputs.append(ffmpeg.input("color=c=teal:s=128x128:r=25:d=0.04", f="lavfi"))
        options |= {"c:v": "mjpeg", "pix_fmt": "yuvj420p"}
        options["disposition:v"] = "attached_pic"
    for index, (name, value) in enumerate((tags or {}).items()):
        options[f"metadata:g:{index}"] = f"{name}={value}"
    path.parent.mkdir(parents=True, exist_ok=True)
    output = ffmpeg.output(*inputs, str(path), v="error", threads=1, **options)
    command = ffmpeg.compile(output.global_args("-nostdin"), tools.ffmpeg, overwrite_output=True)
    # In its own session, so that it does not get the terminal's Ctrl-C.
    done = subprocess.run(command, capture_output=True, check=False, start_new_session=True)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ToneFailed(f"{tools.ffmpeg} cannot write {path}: {said[-1] if said else 'it ended'}")
