"""Which ffmpeg the product takes, and which the tests."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import Misconfigured
from shared.media.tools import AudioTools, find_tools, from_wheel
from tests.support.ffmpegs import another_on_path

ROOT = Path(__file__).parents[2]
DEBIAN_12 = "version 5.1.9-0+deb12u1 Copyright (c) 2000-2026"
UBUNTU_22 = "version 4.4.2-0ubuntu0.22.04.1 Copyright (c) 2000-2021"


def install(folder: Path, **releases: str) -> AudioTools:
    """Programs that tell their release and can do nothing else."""
    folder.mkdir(exist_ok=True)
    for name in ("ffmpeg", "ffprobe"):
        said = f"{name} {releases.get(name, DEBIAN_12)}"
        path = folder / name
        path.write_text(f"#!/bin/sh\n[ \"$1\" = -version ] || exit 1\necho '{said}'\n")
        path.chmod(0o755)
    return AudioTools(ffmpeg=str(folder / "ffmpeg"), ffprobe=str(folder / "ffprobe"))


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on PATH."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is not installed."""

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)


@pytest.mark.parametrize(
    "said",
    [
        *(DEBIAN_12, "version 5.1 Copyright", "version 7.1.2 Copyright", "version n8.1 Copyright"),
        *(
            "version 10.0 Copyright",
            "version N-109542-g7bd5d2c Copyright",
            "version 2026-01-05-git",
        ),
    ],
)
def test_what_is_on_path_comes_first(said: str, on_path: Path) -> None:
    """From 5.1 on, and builds between two releases, which have no number."""
    tools = install(on_path, ffmpeg=said, ffprobe=said)
    assert find_tools() == tools


@pytest.mark.parametrize("old", ["ffmpeg", "ffprobe"])
def test_an_old_release_is_passed_over(old: str, on_path: Path) -> None:
    """One of the two is enough: the wheel has both."""
    install(on_path, **{old: UBUNTU_22})
    assert find_tools() == from_wheel()


@pytest.mark.usefixtures("no_wheel")
def test_an_old_release_alone_is_an_error(on_path: Path) -> None:
    """It tells which program, which release it is and which is needed."""
    old = install(on_path, ffmpeg=UBUNTU_22, ffprobe=UBUNTU_22)
    with pytest.raises(Misconfigured) as caught:
        find_tools()
    assert caught.value.dependency == "ffmpeg"
    assert str(caught.value).endswith(
        f"{old.ffmpeg} is release 4.4, which is too old: install ffmpeg 5.1 or newer, or "
        "pip install 'pezzottify-downloads[local]'"
    )


def test_one_that_does_not_start_is_an_error(on_path: Path) -> None:
    """It is there, so that an operator expects it to be used."""
    Path(install(on_path).ffmpeg).write_text("#!/bin/sh\nexit 127\n")
    with pytest.raises(Misconfigured, match=r"ffmpeg does not start .* 127"):
        find_tools()


def test_these_tests_use_what_they_are_named_for(ffmpeg_of: str) -> None:
    """The wheel's, or that of PATH where the product would take it."""
    wheel = from_wheel()
    assert wheel is not None
    used = Path(find_tools().ffmpeg).resolve()
    assert (used == Path(wheel.ffmpeg).resolve()) is (ffmpeg_of == "wheel")
    assert another_on_path() or ffmpeg_of == "wheel"


@pytest.mark.parametrize(
    ("said", "outcome"), [(DEBIAN_12, "1 failed, 1 passed"), (UBUNTU_22, "1 passed")]
)
def test_no_ffmpeg_on_path_changes_what_the_wheel_is_tested_for(
    said: str, outcome: str, on_path: Path
) -> None:
    """One on PATH that can do nothing fails its own tests, and no other; too old, it has none."""
    install(on_path, ffmpeg=said, ffprobe=said)
    environ = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("tests/media/test_media_verify.py", "-k", "mp3 and good_file"),
        ],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines()[-1].startswith(outcome), run.stdout
