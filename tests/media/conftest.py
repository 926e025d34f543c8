"""Every test of this folder with the wheel's ffmpeg, and with that of PATH where there is one."""

from __future__ import annotations

import pytest

from tests.support.ffmpegs import another_on_path, path_at_the_start


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where there is nothing to choose from, the names of the tests do not tell which it is."""
    if another_on_path():
        metafunc.parametrize("ffmpeg_of", ["wheel", "PATH"], indirect=True)


@pytest.fixture(autouse=True)
def ffmpeg_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where `find_tools` finds it in this test: "wheel" or "PATH"."""
    place = str(getattr(request, "param", "wheel"))
    if place == "PATH":
        monkeypatch.setenv("PATH", path_at_the_start())
    return place
