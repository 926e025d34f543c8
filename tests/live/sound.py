"""Files whose sound tells which track they are, and listening to them.

Each recording is a tone of its own with some noise under it, without which lossless files would be
smaller than any real ones. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.media.tools import AudioTools

Kind = Literal["flac", "mp3", "wav"]

_OPTIONS: Mapping[Kind, Sequence[str]] = {
    "flac": ("-c:a", "flac", "-f", "flac"),
    "mp3": ("-c:a", "libmp3lame", "-b:a", "320k", "-f", "mp3"),
    "wav": ("-c:a", "pcm_s16le", "-f", "wav"),
}
_RATE = 44_100
_HEARD_RATE = 8_000
_TONE = 0.4
_NOISE = 0.03
# Of a 16-bit sample: more than the noise, less than the tone.
_QUIET = 3_000


@dataclass(frozen=True, kw_only=True)
class Tone:
    """A recording: how long, and how high."""

    seconds: float
    hz: int


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a file sounds like; 0 Hz is silence."""

    seconds: float
    hz: float

    def is_(self, tone: Tone) -> bool:
        """Whether it is this recording, from its first to its last second."""
        return abs(self.hz - tone.hz) < 2.5 and abs(self.seconds - tone.seconds) < 0.3


@dataclass(frozen=True)
class Sounds:
    """Makes files, each only once for as long as its folder is kept."""

    folder: Path
    tools: AudioTools

    def make(self, tones: Sequence[Tone], kind: Kind) -> Path:
        """A file of these recordings, one behind the other."""
        name = "_".join(f"{tone.hz}-{tone.seconds:g}" for tone in tones)
        path = self.folder / f"{name}.{kind}"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as made:
                part = Path(made) / "part"
                self._write(part, tones, kind)
                part.rename(path)
        return path

    def _write(self, path: Path, tones: Sequence[Tone], kind: Kind) -> None:
        inputs = [
            argument for tone in tones for argument in ("-f", "lavfi", "-i", _expression(tone))
        ]
        joined = "".join(f"[{place}:a]" for place in range(len(tones)))
        chain = f"{joined}concat=n={len(tones)}:v=0:a=1"
        command = [self.tools.ffmpeg, "-nostdin", "-v", "error", "-y", *inputs]
        _run([*command, "-filter_complex", chain, "-threads", "1", *_OPTIONS[kind], str(path)])

    def heard(self, path: Path) -> Heard:
        """Listen to all of a file; one that cannot be decoded is silent and has no length."""
        command = [self.tools.ffmpeg, "-nostdin", "-v", "error", "-i", str(path), "-map", "0:a:0"]
        decoded = ("-ac", "1", "-ar", str(_HEARD_RATE), "-f", "s16le", "-")
        done = subprocess.run([*command, *decoded], capture_output=True, check=False)
        samples = array("h", done.stdout[: len(done.stdout) // 2 * 2])
        if done.returncode or not samples:
            return Heard(seconds=0, hz=0)
        seconds = len(samples) / _HEARD_RATE
        return Heard(seconds=seconds, hz=_risings(samples) / seconds)


def _expression(tone: Tone) -> str:
    channels = "|".join(
        f"{_TONE}*sin(2*PI*{tone.hz}*t)+{_NOISE}*(random({channel})-0.5)" for channel in (0, 1)
    )
    return f"aevalsrc=exprs='{channels}':s={_RATE}:d={tone.seconds}"


def _risings(samples: array[int]) -> int:
    """How often the wave comes up from well below zero to well above it."""
    count, below = 0, False
    for sample in samples:
        if below and sample > _QUIET:
            count, below = count + 1, False
        elif sample < -_QUIET:
            below = True
    return count


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, start_new_session=True)


def place(source: Path, target: Path) -> None:
    """Put a file that was made where a release has it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
