"""SIGKILL at random moments while 50 items are on their way: all of them arrive.

The crash search kills each service at each of its points; this is everything at once, under load.

CRASH_SEED=n replays a run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from services.local.servers import free_port
from tests.support.invariants import check_the_end, watching
from tests.support.world import ADMIN, World, album_id, eventually

_ITEMS = 50
_SECONDS = 2.0
_KILLS = 3
# An item makes about eight; kills come while the first two thirds of them happen.
_EVENTS = 6 * _ITEMS
_QUICK = {"LEASE_S": "2", "RETRY_INITIAL_S": "0.1", "MAX_TICKETS_IN_FLIGHT": "20"}


@pytest.fixture
def seed() -> int:
    """Another one each time, and in the message of a failure."""
    return int(os.environ.get("CRASH_SEED") or random.randrange(1_000_000))


@asynccontextmanager
async def _replayable(world: World, seed: int) -> AsyncIterator[random.Random]:
    try:
        yield random.Random(seed)
    except BaseException as error:
        log = world.folder / "services.log"
        tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
        error.add_note(f"CRASH_SEED={seed}; the end of the services' log:\n{tail}")
        raise


async def _until_events(world: World, count: int) -> None:
    await eventually(lambda: world.rows("SELECT 1 FROM events"), lambda rows: len(rows) >= count)


async def _kill_again_and_again(world: World, rng: random.Random) -> None:
    """Run all services as a process; kill and restart it at random moments of the work."""
    process = await world.spawn()
    for at in sorted(rng.sample(range(1, _EVENTS), _KILLS)):
        await _until_events(world, at)
        await asyncio.sleep(rng.uniform(0, 0.2))
        assert process.returncode is None, "it ended before it was killed"
        process.kill()
        await process.wait()
        process = await world.spawn()


async def _ask(base_url: str, path: str) -> None:
    """POST until it is answered, as a client does whose server goes away now and then."""
    async with httpx.AsyncClient(base_url=base_url, headers=ADMIN, timeout=5) as api:

        async def answered() -> bool:
            try:
                answer = await api.post(f"/v1/download/{path}")
            except httpx.HTTPError:
                return False
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            return answer.is_success or answer.status_code == 409

        await eventually(answered, within_s=60)


async def test_all_in_one_process_killed(world: World, seed: int) -> None:
    """L-25, L-33: everything dies at once, again and again; still one file and ticket a track."""
    wanted = world.add_album(1, _ITEMS, seconds=_SECONDS)
    async with _replayable(world, seed) as rng, watching(world, seconds=_SECONDS):
        world.env |= _QUICK | {"PORT": str(free_port())}
        asking = asyncio.create_task(
            _ask(f"http://127.0.0.1:{world.env['PORT']}", f"album/{album_id(1)}")
        )
        await _kill_again_and_again(world, rng)
        await asking
        await world.until_ended(_ITEMS)
        await check_the_end(world, wanted)
