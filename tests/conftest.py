"""Real servers for the tests that need them: one PostgreSQL, a database and a NATS each.

A fixture imports what it starts when a test asks for it, so that a test of one function does not
wait for the imports of every service.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.support.ffmpegs import prefer_the_wheel

if TYPE_CHECKING:
    from services.local.postgres import Postgres
    from services.local.servers import Nats
    from shared.db.pool import Database
    from tests.support.stages import Stages
    from tests.support.world import World

_numbers = itertools.count()

# Services in this process log as structlog does by itself, whose tracebacks with all variables
# take a second each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=False),
    ]
)


_made: list[Path] = []


def pytest_configure() -> None:
    """Let every test and every service that it starts use the same ffmpeg, the wheel's."""
    if (folder := prefer_the_wheel()) is not None:
        _made.append(folder)


def pytest_unconfigure() -> None:
    """Remove what `pytest_configure` made."""
    while _made:
        shutil.rmtree(_made.pop())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Prepare Hypothesis for the tests that use it."""
    if item.get_closest_marker("hypothesis"):
        _draw_one_text()


@cache
def _draw_one_text() -> None:
    # The first text builds Hypothesis's map of characters, 2 s in a fresh clone. In a test, its
    # health check counts that as slow input and fails.
    from hypothesis import find
    from hypothesis import strategies as st

    find(st.text(), lambda _: True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server; `template` in it is migrated once and copied for each test."""
    from services.local.postgres import Postgres
    from tests.support.databases import start

    # Not pytest's folder: run by root, PostgreSQL is another user, who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="pezzottify-test-"))
    folder.chmod(0o755)
    server = Postgres(folder / "postgres", fsync=False)
    try:
        asyncio.run(start(server))
        yield server
    finally:
        # A last checkpoint of hundreds of databases that no test reads takes half a minute, and so
        # does the removal of their files: the run does not wait for it.
        asyncio.run(server.stop(at_once=True))
        subprocess.run(
            ["/bin/sh", "-c", 'rm -rf "$0" >/dev/null 2>&1 &', str(folder)],
            stdin=subprocess.DEVNULL,
            check=True,
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="pezzottify-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def database_url(postgres: Postgres) -> str:
    """A fresh, migrated database of this test's own."""
    from tests.support.databases import new_database

    return await new_database(postgres, f"test_{next(_numbers)}")


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[Nats]:
    """A NATS server of this test's own."""
    from services.local.servers import Nats

    server = Nats(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """A whole world; see tests/support/world.py."""
    from tests.support.world import make_world

    async with make_world(tmp_path, database_url) as made:
        yield made


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    """The pool of a test that talks to its world's database itself."""
    from shared.db.pool import Database

    made = Database(world.database_url)
    yield made
    await made.close()


@pytest.fixture
async def still(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """A world whose Torrentino takes tickets and does nothing by itself with them."""
    from services.local.torrentino import StandinConfig
    from tests.support.world import make_world

    async with make_world(tmp_path, database_url, StandinConfig(orchestrator=False)) as made:
        yield made


@pytest.fixture
async def by_hand(still: World) -> AsyncIterator[Stages]:
    """The workers of a still world, one step at a time."""
    from tests.support.stages import stages

    async with stages(still) as made:
        yield made
