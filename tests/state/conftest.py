"""The machine's fixture."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from services.local.postgres import Postgres
from shared.acquisition.protocol import ModeName
from tests.state.direct import DirectMachine
from tests.state.machine import Machine
from tests.state.setting import setting
from tests.support.databases import new_database

_numbers = itertools.count()


@pytest.fixture
def machine(tmp_path: Path, postgres: Postgres) -> Iterator[type[Machine]]:
    """The machine on a database of its own, with an event loop that all of its runs share."""
    with _set(Machine, tmp_path, postgres, "tickets"):
        yield Machine


@pytest.fixture
def direct_machine(tmp_path: Path, postgres: Postgres) -> Iterator[type[DirectMachine]]:
    """The same for direct downloads."""
    with _set(DirectMachine, tmp_path, postgres, "direct"):
        yield DirectMachine


@contextmanager
def _set(machine: type[Machine], folder: Path, postgres: Postgres, way: ModeName) -> Iterator[None]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def enter() -> None:
            url = await new_database(postgres, f"state_{next(_numbers)}")
            made = await stack.enter_async_context(setting(folder, url, way=way))
            machine.setting, machine.runner = made, runner

        runner.run(enter())
        yield
        runner.run(stack.aclose())
