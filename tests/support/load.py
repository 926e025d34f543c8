"""Work under way, for a fault to happen in, and what it must come to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.invariants import check_the_end, watching
from tests.support.outcomes import Outcome, outcome
from tests.support.world import Running, World, album_id, eventually

SECONDS = 2.0


async def some_events(world: World, count: int) -> None:
    """Wait until work has got so far."""
    await eventually(lambda: world.rows("SELECT 1 FROM events"), lambda rows: len(rows) >= count)


async def ask_for_album(running: Running, number: int = 1) -> None:
    """Ask for it until it is accepted, as the catalog server would."""
    api = running.api
    assert api is not None

    async def accepted() -> bool:
        return (await api.post(f"/v1/download/album/{album_id(number)}")).is_success

    await eventually(accepted)


@asynccontextmanager
async def under_load(
    world: World, fault: str, *, items: int = 8, **overrides: str
) -> AsyncIterator[tuple[Running, Outcome]]:
    """All services with an album under way; after the block all of it arrives, and is checked.

    Call `removed()` of the outcome when the fault is over.
    """
    wanted = world.add_album(1, items, seconds=SECONDS)
    async with watching(world, seconds=SECONDS), outcome(world, fault) as timed:
        running = await world.run(**overrides)
        await ask_for_album(running)
        yield running, timed
        await world.until_ended(items)
    await check_the_end(world, wanted)
