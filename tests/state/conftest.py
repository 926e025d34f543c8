"""The machine's fixture."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.local.postgres import Postgres
from tests.state.machine import Machine
from tests.state.setting import setting

_numbers = itertools.count()


@pytest.fixture
def machine(tmp_path: Path, postgres: Postgres) -> Iterator[type[Machine]]:
    """The machine on a database of its own, with an event loop that all of its runs share."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def enter() -> None:
            name = f"state_{next(_numbers)}"
            await postgres.create_database(name, template="template")
            made = await stack.enter_async_context(setting(tmp_path, postgres.url(name)))
            Machine.setting, Machine.runner = made, runner

        runner.run(enter())
        yield Machine
        runner.run(stack.aclose())
