"""What a unit test may not do: start a process (ffmpeg, a server), or listen on a port.

`make unit` takes seconds because of it. Such a test belongs into tests/media (ffmpeg),
tests/contract, tests/services or another folder beside this one.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

# Events that Python reports before it starts a process or takes a port:
# docs.python.org/3/library/audit_events.html
_REFUSED = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "pty.spawn",
        "socket.bind",
        "subprocess.Popen",
    }
)


class Guard:
    """Refuses these events while it is on. An audit hook cannot be removed."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._on = False
        sys.addaudithook(self._hook)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Fail what tries one of them, also where the code under test hides the error."""
        self.refused.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False
        if self.refused:
            pytest.fail(f"no test of tests/unit may do this: {self.refused}", pytrace=False)

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if self._on and event in _REFUSED:
            self.refused.append(f"{event}{args!r}")
            raise PermissionError(f"no test of tests/unit may do this: {self.refused[-1]}")


_guard = Guard()


@pytest.fixture
def guard() -> Guard:
    """What watches each test of this folder."""
    return _guard


# Not the teardown: the last test of a run tears down what tests of other folders have started.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    with _guard.on():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    with _guard.on():
        yield
