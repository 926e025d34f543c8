"""libtorrent for the swarm, from the package index: the product itself does not need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.live.programs import Failed

_WANTED = "libtorrent>=2.0.11,<3"


def libtorrent(folder: Path) -> Path:
    """A folder with libtorrent for this Python, which is made if it is not there. Blocks.

    Raises:
        Failed: the package index has none, or does not answer.
    """
    libraries = folder / f"python{sys.version_info.major}.{sys.version_info.minor}"
    if (libraries / "libtorrent").exists():
        return libraries
    folder.mkdir(exist_ok=True)
    # Whatever is in it is nobody's to commit.
    (folder / ".gitignore").write_text("*\n", encoding="ascii")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [*pip, "--target", str(libraries), _WANTED], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise Failed(f"no libtorrent for the swarm: {lines[-1] if lines else 'pip failed'}")
    return libraries
