"""The whole files that the cases are made from: a few seconds of sound in each codec."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from shared.media.tools import from_wheel

# Noise whose volume changes, so that no two seconds are alike and VBR has something to vary.
_MUSIC = "anoisesrc=d={seconds}:c=pink:a=0.3:seed=1,volume='if(lt(t,{third}),0.02,1)':eval=frame"
_SILENCE = "anullsrc=cl=stereo:d={seconds}"
_RATE_HZ = 44_100


def written(content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """What `Case.make` is: it writes the content into the folder."""

    def make(folder: Path) -> Path:
        path = folder / "song"
        path.write_bytes(content())
        return path

    return make


def sound(*options: str, seconds: float = 6, rate_hz: int = _RATE_HZ, channels: int = 2) -> bytes:
    """Noise of exactly that length, encoded by the wheel's ffmpeg with these options."""
    source = _MUSIC.format(seconds=seconds, third=seconds / 3)
    return _encoded(source, (*options, "-ar", str(rate_hz), "-ac", str(channels)))


def silence(*options: str, seconds: float = 6) -> bytes:
    """Digital silence of exactly that length."""
    return _encoded(_SILENCE.format(seconds=seconds), options)


@cache
def _encoded(source: str, options: tuple[str, ...]) -> bytes:
    tools = from_wheel()
    assert tools is not None, "requirements.lock has it"
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        # To a file: a pipe cannot be rewritten, and headers would lack their lengths.
        path = Path(folder) / "song"
        subprocess.run(
            (
                *(tools.ffmpeg, "-nostdin", "-v", "error", "-threads", "1"),
                *("-f", "lavfi", "-i", source, *options, "-bitexact", str(path)),
            ),
            check=True,
            capture_output=True,
        )
        return path.read_bytes()


def mp3(
    *, seconds: float = 6, header: bool = True, channels: int = 2, rate_hz: int = _RATE_HZ
) -> bytes:
    """Constant 128 kbit/s, with or without a header that counts the frames; no tag."""
    return sound(
        *("-c:a", "libmp3lame", "-b:a", "128k", "-write_xing", str(int(header))),
        *("-id3v2_version", "0", "-f", "mp3"),
        seconds=seconds,
        channels=channels,
        rate_hz=rate_hz,
    )


def vbr_mp3(*, seconds: float = 6, header: bool = True) -> bytes:
    """Variable bit rate; no tag."""
    return sound(
        *("-c:a", "libmp3lame", "-q:a", "4", "-write_xing", str(int(header))),
        *("-id3v2_version", "0", "-f", "mp3"),
        seconds=seconds,
    )


def flac(*, seconds: float = 6, bits: int = 16) -> bytes:
    """Of 16 or 24 bits."""
    form = "s16" if bits == 16 else "s32"
    return sound("-c:a", "flac", "-sample_fmt", form, "-f", "flac", seconds=seconds)


def wav(*, seconds: float = 6) -> bytes:
    """Of 16 bits."""
    return sound("-c:a", "pcm_s16le", "-f", "wav", seconds=seconds)


def vorbis(*, seconds: float = 6) -> bytes:
    """Of ffmpeg's own encoder."""
    return sound("-c:a", "vorbis", "-strict", "-2", "-f", "ogg", seconds=seconds)


def opus(*, seconds: float = 6) -> bytes:
    """96 kbit/s."""
    return sound("-c:a", "libopus", "-b:a", "96k", "-f", "ogg", seconds=seconds, rate_hz=48_000)


def aac(*, seconds: float = 6) -> bytes:
    """In MP4."""
    return sound("-c:a", "aac", "-b:a", "128k", "-f", "ipod", seconds=seconds)


def alac(*, seconds: float = 6) -> bytes:
    """In MP4."""
    return sound("-c:a", "alac", "-f", "ipod", seconds=seconds)


def adts(*, seconds: float = 6) -> bytes:
    """Raw AAC."""
    return sound("-c:a", "aac", "-b:a", "128k", "-f", "adts", seconds=seconds)


def wma(*, seconds: float = 6) -> bytes:
    """Version 2."""
    return sound("-c:a", "wmav2", "-b:a", "128k", "-f", "asf", seconds=seconds)
