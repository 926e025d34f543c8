"""Real servers for every test that needs them: one PostgreSQL, a database and a NATS each."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import find
from hypothesis import strategies as st

from services.local.postgres import Postgres
from services.local.servers import Nats
from services.local.torrentino import StandinConfig
from shared.db.migrate import migrate
from shared.db.pool import Database
from tests.support.stages import Stages, stages
from tests.support.world import World, make_world

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


@pytest.fixture(scope="session", autouse=True)
def _first_text() -> None:
    """Draw one text before any test does."""
    # The first text builds Hypothesis's map of characters, 2 s in a fresh clone. In a test, its
    # health check counts that as slow input and fails.
    find(st.text(), lambda _: True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server; `template` in it is migrated once and copied for each test."""
    # Not pytest's folder: run by root, PostgreSQL is another user, who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="pezzottify-test-"))
    folder.chmod(0o755)
    server = Postgres(folder / "postgres", fsync=False)
    try:
        asyncio.run(_start(server))
        yield server
    finally:
        # A last checkpoint of hundreds of databases that nobody will read takes half a minute, and
        # so does the removal of their files: nobody waits for it.
        asyncio.run(server.stop(at_once=True))
        subprocess.run(
            ["/bin/sh", "-c", 'rm -rf "$0" >/dev/null 2>&1 &', str(folder)],
            stdin=subprocess.DEVNULL,
            check=True,
        )


async def _start(server: Postgres) -> None:
    await server.start()
    await server.create_database("template")
    await migrate(server.url("template"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="pezzottify-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def database_url(postgres: Postgres) -> str:
    """A fresh, migrated database of this test's own."""
    name = f"test_{next(_numbers)}"
    await postgres.create_database(name, template="template")
    return postgres.url(name)


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[Nats]:
    """A NATS server of this test's own."""
    server = Nats(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """A whole world; see tests/support/world.py."""
    async with make_world(tmp_path, database_url) as made:
        yield made


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    """The pool of a test that talks to its world's database itself."""
    made = Database(world.database_url)
    yield made
    await made.close()


@pytest.fixture
async def still(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """A world whose Torrentino takes tickets and does nothing by itself with them."""
    async with make_world(tmp_path, database_url, StandinConfig(orchestrator=False)) as made:
        yield made


@pytest.fixture
async def by_hand(still: World) -> AsyncIterator[Stages]:
    """The workers of a still world, one step at a time."""
    async with stages(still) as made:
        yield made
