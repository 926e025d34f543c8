"""Programs of Debian that some tests need. Without one its tests are skipped, except in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def debian_program(name: str, *, package: str) -> str:
    """Where the program is; ends the test when it is nowhere."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is not None:
        return found
    missing = f"{name} is not installed: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
