"""NATS restarted, emptied, slow and cut while the services work."""

from __future__ import annotations

import uuid

import nats

from shared.bus.streams import STREAMS
from shared.bus.subjects import REQUEST_ALBUM
from tests.support.load import some_events, under_load
from tests.support.proxy import proxied
from tests.support.world import World, album_id, eventually


async def _names_of_streams(world: World) -> set[str]:
    client = await nats.connect(world.nats.url)
    try:
        return {str(info.config.name) for info in await client.jetstream().streams_info()}
    finally:
        await client.close()


async def test_nats_restarted_and_killed_under_load(world: World) -> None:
    """L-35: everything arrives, and every event is in the stream in the end."""
    async with under_load(world, "NATS restarted, then killed, under load") as (running, timed):
        for events, end in ((20, world.nats.stop), (60, world.nats.kill)):
            await some_events(world, events)
            await end()
            await world.nats.start()
        await running.app.bus.connected.wait()
        timed.removed()


async def test_nats_loses_its_storage_under_load(world: World) -> None:
    """Streams and consumers come back, and with them every event that PostgreSQL knows of."""
    async with under_load(world, "NATS' storage deleted under load") as (_, timed):
        await some_events(world, 40)
        published = "SELECT 1 FROM events WHERE published_at IS NOT NULL"
        await eventually(lambda: world.rows(published), lambda rows: len(rows) > 10)
        await world.nats.kill()
        world.nats.forget()
        await world.nats.start()
        timed.removed()
        wanted = {str(stream.name) for stream in STREAMS}
        await eventually(lambda: _names_of_streams(world), lambda names: names >= wanted)
        for durable in ("ingest", "watchdog"):
            await eventually(lambda d=durable: world.has_consumer(d))  # type: ignore[misc]
    unpublished = "SELECT 1 FROM events WHERE published_at IS NULL"
    await eventually(lambda: world.rows(unpublished), lambda rows: not rows)
    known = {str(row["id"]) for row in await world.rows("SELECT id FROM events")}
    there = {event["headers"]["Nats-Msg-Id"] for event in await world.events()}
    assert there >= known
    # A request that comes then is handled as ever.
    world.add_album(2, 2, seconds=2.0)
    body = {"v": 1, "request_id": str(uuid.uuid4()), "album_id": album_id(2)}
    await world.publish(REQUEST_ALBUM, body)
    await world.until_ended(10)


async def test_a_slow_nats_slows_nothing_else(world: World) -> None:
    """Each message takes 0.3 s to NATS and back: files arrive as usual, events a little later."""
    async with proxied(world.nats.url) as (proxy, url):
        world.env["NATS_URL"] = url
        async with under_load(world, "NATS slow (0.3 s each way)") as (running, timed):
            await running.app.bus.connected.wait()
            proxy.delay_s = 0.3
            await world.until_ended(8)
            proxy.delay_s = 0.0
            timed.removed()
        await world.close()


async def test_nats_cut_and_silent(world: World) -> None:
    """Cut connections and one that hangs: the work continues, the events follow."""
    async with proxied(world.nats.url) as (proxy, url):
        world.env["NATS_URL"] = url
        async with under_load(world, "NATS cut, then silent (black hole)") as (running, timed):
            await running.app.bus.connected.wait()
            proxy.cut()
            await some_events(world, 40)
            proxy.hold()
            await world.until_ended(8)
            proxy.cut()
            proxy.flow()
            timed.removed()
            await running.app.bus.connected.wait()
        await world.close()
