"""The outbox relay: every event once in the stream, in order, whatever happens to the relay."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from services.local.servers import Nats
from shared.bus.nats import Bus, Outgoing
from shared.bus.relay import Relay
from shared.clock import SystemClock
from shared.db.pool import Database
from shared.errors import DependencyDown
from shared.health import Health
from tests.support.world import Row, World, eventually

_UNPUBLISHED = "SELECT seq FROM events WHERE published_at IS NULL"


@asynccontextmanager
async def _bus(nats_server: Nats, kind: type[Bus] = Bus) -> AsyncIterator[Bus]:
    bus = kind(nats_server.url, name="test", health=Health(SystemClock()))
    stop = asyncio.Event()
    task = asyncio.create_task(bus.run(stop))
    try:
        async with asyncio.timeout(10):
            await bus.connected.wait()
        yield bus
    finally:
        stop.set()
        await task


async def _events(
    world: World, count: int, *, kind: str = "test", data: object = None
) -> list[str]:
    """Rows in the outbox as a service would leave them; their ids in order."""
    connection = await asyncpg.connect(world.database_url)
    try:
        rows = await connection.fetch(
            "INSERT INTO events (kind, actor, data) SELECT $1, 'test', $2::text::jsonb"
            " FROM generate_series(1, $3) RETURNING id",
            kind,
            json.dumps(data or {}),
            count,
        )
        return [str(row["id"]) for row in rows]
    finally:
        await connection.close()


def _ids(events: Sequence[Row]) -> list[str]:
    return [event["body"]["event_id"] for event in events]


async def _all_of(relay: Relay) -> int:
    total = 0
    while done := await relay.run_once():
        total += done
    return total


async def test_one_relay_keeps_the_order(world: World) -> None:
    """What one relay publishes is in the stream in the order of the outbox, each once."""
    wanted = await _events(world, 450)
    database = Database(world.database_url)
    async with _bus(world.nats) as bus:
        assert await _all_of(Relay(database, bus)) == 450
    await database.close()
    assert _ids(await world.events()) == wanted
    assert await world.rows(_UNPUBLISHED) == []


async def test_two_relays_at_once_publish_each_event_once(world: World) -> None:
    """Any number of relays share the outbox: none of them takes what another holds."""
    wanted = await _events(world, 1000)
    databases = [Database(world.database_url) for _ in range(3)]
    async with _bus(world.nats) as bus, _bus(world.nats) as other:
        relays = [Relay(db, b) for db, b in zip(databases, (bus, other, other), strict=True)]
        done = await asyncio.gather(*(_all_of(relay) for relay in relays))
    for database in databases:
        await database.close()
    assert sum(done) == 1000
    assert sorted(_ids(await world.events())) == sorted(wanted)


class _DiesBeforeTheCommit(Bus):
    async def publish(self, messages: Sequence[Outgoing]) -> None:
        await super().publish(messages)
        raise _Killed


class _Killed(BaseException):
    pass


async def test_a_relay_that_dies_before_its_commit_publishes_nothing_twice(world: World) -> None:
    """L-33: published, not marked, dead: the event comes again under its id, and is there once."""
    wanted = await _events(world, 5)
    database = Database(world.database_url)
    async with _bus(world.nats, _DiesBeforeTheCommit) as dying:
        with pytest.raises(_Killed):
            await Relay(database, dying).run_once()
    assert len(await world.rows(_UNPUBLISHED)) == 5
    assert _ids(await world.events()) == wanted
    async with _bus(world.nats) as bus:
        assert await _all_of(Relay(database, bus)) == 5
    await database.close()
    events = await world.events()
    assert _ids(events) == wanted
    assert [event["headers"]["Nats-Msg-Id"] for event in events] == wanted


async def test_what_is_too_large_is_cut_and_holds_up_nothing(world: World) -> None:
    """An event beyond NATS' limit goes out without its bulk, and those behind it go out whole."""
    large = {"user_ids": [str(uuid.uuid4()) for _ in range(60_000)], "track_id": "T" * 22}
    [first] = await _events(world, 1, kind="audio.ready", data=large)
    [second] = await _events(world, 1)
    database = Database(world.database_url)
    async with _bus(world.nats) as bus:
        assert await _all_of(Relay(database, bus)) == 2
        assert bus.connected.is_set(), "the server did not throw us out"
    await database.close()
    events = await world.events()
    assert _ids(events) == [first, second]
    body = events[0]["body"]
    assert body["truncated"] is True
    assert len(body["user_ids"]) == 100
    assert body["track_id"] == "T" * 22


@pytest.mark.parametrize("odd", ["a b", "", "*", "x.>", "a\r\nPUB b", "ü" * 500, None])
async def test_an_odd_id_makes_no_odd_subject(world: World, odd: str | None) -> None:
    """Whatever an id holds, its event is published under a subject that NATS takes."""
    await _events(world, 1, kind="audio.ready", data={"track_id": odd})
    await _events(world, 1)
    database = Database(world.database_url)
    async with _bus(world.nats) as bus:
        assert await _all_of(Relay(database, bus)) == 2
    await database.close()
    events = await world.events()
    assert len(events) == 2
    assert events[0]["body"]["track_id"] == odd
    assert len(events[0]["subject"].split(".")) == 6


async def test_what_the_server_refuses_holds_up_nothing(world: World) -> None:
    """An event that the stream will never take is dropped from the outbox, the others go out."""
    database = Database(world.database_url)
    async with _bus(world.nats) as bus:
        js = bus.jetstream()
        config = (await js.stream_info("PEZZOTTIFY_DOWNLOAD_EVENTS")).config
        config.max_msg_size = 2000
        await js.update_stream(config)
        await _events(world, 1)
        await _events(world, 1, data={"large": "x" * 3000})
        await _events(world, 1)
        assert await _all_of(Relay(database, bus)) == 3
    await database.close()
    assert len(await world.events()) == 2
    assert await world.rows(_UNPUBLISHED) == []


async def test_the_outbox_waits_for_nats(world: World) -> None:
    """Without NATS the events stay in the outbox, and say so."""
    wanted = await _events(world, 3)
    database = Database(world.database_url)
    async with _bus(world.nats) as bus:
        relay = Relay(database, bus)
        await world.nats.stop()
        with pytest.raises(DependencyDown):
            await relay.run_once()
        assert len(await world.rows(_UNPUBLISHED)) == 3
        await world.nats.start()
        await asyncio.wait_for(_until_connected(bus), 10)
        assert await _all_of(relay) == 3
    await database.close()
    assert _ids(await eventually(world.events)) == wanted


async def _until_connected(bus: Bus) -> None:
    while True:
        await bus.connected.wait()
        try:
            bus.jetstream()
        except DependencyDown:
            await asyncio.sleep(0.01)
        else:
            return


async def test_a_message_larger_than_nats_takes_does_not_end_the_connection(world: World) -> None:
    """A message too large by its headers alone is refused by us: the server would cut us off."""
    async with _bus(world.nats) as bus:
        body = b"x" * (bus.max_payload - 10)
        with pytest.raises(DependencyDown, match="not accepted"):
            await bus.publish([Outgoing(subject="pezzottify.download.dead", body=body, id="1")])
        await bus.publish([Outgoing(subject="pezzottify.download.dead", body=b"x", id="2")])


async def test_the_bus_stops_while_it_cannot_connect() -> None:
    """L-26: a stop does not wait for a NATS that is not there."""
    health = Health(SystemClock())
    bus = Bus("nats://127.0.0.1:1", name="test", health=health)
    stop = asyncio.Event()
    task = asyncio.create_task(bus.run(stop))

    async def told() -> bool:
        return "nats" in health.conditions()

    await eventually(told)
    assert not health.conditions()["nats"].ok
    stop.set()
    await asyncio.wait_for(task, 5)
