"""Which ffmpeg the tests use: the wheel's, whatever is on PATH; tests/media also that of PATH."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from unittest.mock import patch

from shared.media.tools import find_tools, from_wheel

# The PATH that the run was started with. The processes of pytest-xdist inherit it.
_STARTED_WITH = "TESTS_STARTED_WITH_PATH"


def prefer_the_wheel() -> Path | None:
    """Put the wheel's programs first on PATH, for this process and for those that it starts.

    Returns the folder to remove at the end of the run; None in a process of pytest-xdist, whose
    PATH has it already.
    """
    if _STARTED_WITH in os.environ:
        return None
    wheel = from_wheel()
    assert wheel is not None, "requirements.lock has it"
    # Other users than this one run services as well.
    folder = Path(tempfile.mkdtemp(prefix="pezzottify-ffmpeg-"))
    folder.chmod(0o755)
    (folder / "ffmpeg").symlink_to(wheel.ffmpeg)
    (folder / "ffprobe").symlink_to(wheel.ffprobe)
    os.environ[_STARTED_WITH] = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ[_STARTED_WITH]}"
    return folder


def path_at_the_start() -> str:
    """PATH as it was before the wheel's programs came first."""
    return os.environ[_STARTED_WITH]


@cache
def another_on_path() -> bool:
    """Whether the product would take an ffmpeg of that PATH."""
    with patch.dict(os.environ, PATH=path_at_the_start()):
        return find_tools() != from_wheel()
