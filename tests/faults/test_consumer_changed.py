"""F38: the durable consumer that another program reconfigured is set right while ingest runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.js import JetStreamContext

from services.ingest.consumer import DURABLE, FILTERS
from shared.bus import durable
from shared.bus.streams import consumer
from shared.bus.subjects import REQUEST_CANCEL, REQUESTS_STREAM
from tests.support.ingest_helpers import send, serve
from tests.support.world import World, eventually

Change = Callable[[JetStreamContext], Awaitable[object]]
WANTED = consumer(DURABLE, FILTERS)


async def narrowed(js: JetStreamContext) -> object:
    return await js.add_consumer(REQUESTS_STREAM, WANTED.evolve(filter_subjects=[REQUEST_CANCEL]))


async def headers_only(js: JetStreamContext) -> object:
    return await js.add_consumer(REQUESTS_STREAM, WANTED.evolve(headers_only=True))


async def paused(js: JetStreamContext) -> object:
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    return await js.pause_consumer(REQUESTS_STREAM, DURABLE, until)


async def deleted(js: JetStreamContext) -> object:
    return await js.delete_consumer(REQUESTS_STREAM, DURABLE)


async def recreated(js: JetStreamContext) -> object:
    """With a setting that no update changes back."""
    await js.delete_consumer(REQUESTS_STREAM, DURABLE)
    return await js.add_consumer(REQUESTS_STREAM, WANTED.evolve(max_waiting=1, max_deliver=1))


@pytest.mark.parametrize("change", [narrowed, headers_only, paused, deleted, recreated])
async def test_a_changed_consumer(
    change: Change, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are taken again, without a restart and without a new connection."""
    monkeypatch.setattr(durable, "CHECK_S", 0.2)
    before, after = world.add_album(1, 2)
    await serve(world)
    await send(world, before)
    await eventually(world.items, lambda items: len(items) == 1)
    client = await nats.connect(world.nats.url)
    try:
        js = client.jetstream()
        right = (await js.consumer_info(REQUESTS_STREAM, DURABLE)).config
        assert right is not None
        await change(js)
        await send(world, after)
        await eventually(world.items, lambda items: len(items) == 2, within_s=15)
        found = await js.consumer_info(REQUESTS_STREAM, DURABLE)
        assert found.config is not None
        assert not found.paused
        assert (found.config.filter_subjects, found.config.max_waiting) == (
            right.filter_subjects,
            right.max_waiting,
        )
    finally:
        await client.close()
