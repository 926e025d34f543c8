"""NATS goes away during work, or PostgreSQL and NATS are not there yet.

What a fault costs is in tests/faults.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from services.local.postgres import Postgres
from services.local.servers import free_port
from shared.bus.subjects import REQUEST_ALBUM
from shared.db.migrate import migrate
from tests.support.invariants import check_the_end, watching
from tests.support.world import World, album_id, eventually, free_ops_port, make_world

_SECONDS = 2.0
# The issue's own figure; half a minute of waiting is for who asks for it.
_LONG_S = 30.0


@asynccontextmanager
async def _own_postgres(folder: Path, *, port: int | None = None) -> AsyncIterator[Postgres]:
    server = Postgres(folder / "postgres", port=port, fsync=False)
    try:
        yield server
    finally:
        await server.stop()


async def _request_over_nats(world: World, number: int) -> None:
    body = {"v": 1, "request_id": str(uuid.uuid4()), "album_id": album_id(number)}
    await world.publish(REQUEST_ALBUM, body)


async def test_all_arrives_while_nats_is_away(world: World) -> None:
    """L-35: without one wake-up all arrives by the sweeps; the events follow when NATS does."""
    wanted = world.add_album(1, 12, seconds=_SECONDS)
    running = await world.run()
    assert running.api is not None
    async with watching(world, seconds=_SECONDS):
        await running.app.bus.connected.wait()
        await world.nats.kill()
        answer = await running.api.post(f"/v1/download/album/{album_id(1)}")
        assert answer.status_code == 202
        await world.until_ended(12)
        await world.nats.start()
        await check_the_end(world, wanted)
    wanted += world.add_album(2, 3, seconds=_SECONDS)
    await _request_over_nats(world, 2)
    await world.until_ended(15)


@pytest.mark.skipif("LONG_OUTAGES" not in os.environ, reason="LONG_OUTAGES=1 waits for it")
async def test_nats_away_for_half_a_minute(world: World) -> None:
    """The same with items of all stages on their way, and for as long as the issue says."""
    wanted = world.add_album(1, 50, seconds=_SECONDS)
    running = await world.run()
    assert running.api is not None
    async with watching(world, seconds=_SECONDS):
        await running.api.post(f"/v1/download/album/{album_id(1)}")
        await eventually(world.items, lambda items: any(i["completed_at"] for i in items))
        await world.nats.stop()
        await asyncio.sleep(_LONG_S)
        await world.until_ended(50)
        await world.nats.start()
        await check_the_end(world, wanted)


async def test_nats_restarts_under_a_consumer(world: World) -> None:
    """A request that is published right after a restart is handled, without a restart here."""
    world.add_album(1, 2, seconds=_SECONDS)
    await world.run()
    await eventually(lambda: world.has_consumer("ingest"))
    for _ in range(2):
        await world.nats.kill()
        await world.nats.start()
    await _request_over_nats(world, 1)
    await world.until_ended(2)


async def test_a_connection_that_nats_ends_for_good_is_made_anew(world: World) -> None:
    """What nats-py takes as the end of a connection, an error of the protocol, is none for us."""
    world.add_album(1, 1, seconds=_SECONDS)
    running = await world.run()
    bus = running.app.bus
    await bus.connected.wait()
    client = bus.client
    assert client is not None
    assert client._transport is not None
    client._transport.write(b"NONSENSE\r\n")

    async def another() -> bool:
        return bus.connected.is_set() and bus.client is not client

    await eventually(another)
    await _request_over_nats(world, 1)
    await world.until_ended(1)


async def test_services_start_before_what_they_need(folder: Path) -> None:
    """Started first of all, every service waits for PostgreSQL, its schema and NATS; then works."""
    postgres_port, ops = free_port(), free_ops_port()
    async with (
        _own_postgres(folder, port=postgres_port) as postgres,
        make_world(folder / "world", postgres.url()) as world,
    ):
        await world.nats.stop()
        world.add_album(1, 3, seconds=_SECONDS)
        world.env["PORT"] = str(free_port())
        process = await world.spawn(OPS_PORT=ops)

        async def ready() -> int:
            try:
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"http://127.0.0.1:{ops}/readyz")).status_code
            except httpx.HTTPError:
                return 0

        assert await eventually(ready) == 503
        await postgres.start()
        assert await ready() == 503
        await migrate(postgres.url())
        await eventually(ready, lambda status: status == 200)
        await world.nats.start()
        await eventually(lambda: world.has_consumer("ingest"))
        await _request_over_nats(world, 1)
        await world.until_ended(3)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0
