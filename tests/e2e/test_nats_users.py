"""The whole way with rights: each service and the catalog server come as their own NATS user."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.js.api import DeliverPolicy

from services.local.torrentino import StandinConfig
from shared.bus.subjects import (
    COMMAND_SCAN,
    DEAD,
    DEAD_STREAM,
    EVENT,
    EVENTS_STREAM,
    REQUEST_ALBUM,
    REQUEST_CANCEL,
    REQUEST_TRACK,
)
from shared.settings import SERVICES
from tests.support.shipped_nats import ShippedNats, Visitor, visitor
from tests.support.world import Running, World, album_id, eventually, make_world


@pytest.fixture
async def rights(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """A world around the NATS server that we ship."""
    server = ShippedNats(tmp_path / "nats")
    config = StandinConfig(acquire_s=0.0, download_s=0.1, tick_s=0.02)
    async with make_world(tmp_path, database_url, config, server) as made:
        # Long enough to withdraw what Torrentino does not find.
        made.env["RETRY_INITIAL_S"] = "60"
        yield made


def server_of(world: World) -> ShippedNats:
    """Its NATS server."""
    assert isinstance(world.nats, ShippedNats)
    return world.nats


async def run_each(world: World) -> dict[str, Running]:
    """Every service with a process's parts of its own, and its own user."""
    running: dict[str, Running] = {}
    for service in SERVICES:
        running[service] = await world.run(service, NATS_URL=server_of(world).url_of(service))
    for one in running.values():
        await one.app.bus.connected.wait()
    return running


async def ask(catalog: Visitor, subject: str, **body: object) -> str:
    """Ask as the catalog server does; returns the request's id once NATS has it."""
    request = {"v": 1, "request_id": str(uuid.uuid4()), "user_id": "42"} | body
    # A withdrawal within a tenth of a second would be taken for its request once more.
    headers = {"Nats-Msg-Id": str(uuid.uuid4())}
    data = json.dumps(request).encode()
    await catalog.client.jetstream(timeout=3).publish(subject, data, headers=headers)
    return str(request["request_id"])


async def told(catalog: Visitor, subject: str) -> list[dict[str, Any]]:
    """What the catalog server reads of the events so far."""
    subscription = await catalog.client.jetstream(timeout=3).subscribe(
        f"{EVENT}.{subject}",
        stream=EVENTS_STREAM,
        ordered_consumer=True,
        deliver_policy=DeliverPolicy.ALL,
    )
    found = []
    try:
        while True:
            found.append(json.loads((await subscription.next_msg(timeout=0.3)).data))
    except nats.errors.TimeoutError:
        return found
    finally:
        await subscription.unsubscribe()


async def until_told(catalog: Visitor, subject: str, count: int) -> list[dict[str, Any]]:
    """The events, when so many are there."""
    return await eventually(lambda: told(catalog, subject), lambda found: len(found) >= count)


async def test_the_whole_way_with_the_least_rights(rights: World) -> None:
    """Requests, a withdrawal, a scan, a dead message, and the loss of all that NATS had stored:
    nobody tries what he may not, and nobody may what he does not need."""
    server = server_of(rights)
    wanted = rights.add_album(1, 3)
    running = await run_each(rights)
    async with visitor(server.url_of("catalog")) as catalog:
        await ask(catalog, REQUEST_ALBUM, album_id=album_id(1))
        await rights.until_ended(3)
        ready = await until_told(catalog, "audio.ready.*", 3)
        assert {event["track_id"] for event in ready} == set(wanted) == set(rights.files())
        [never] = rights.add_album(2, 1, songs=False)
        request_id = await ask(catalog, REQUEST_TRACK, track_id=never)
        await eventually(
            rights.items,
            lambda items: (items[-1]["track_id"], items[-1]["stage"]) == (never, "retry_wait"),
        )
        await ask(catalog, REQUEST_CANCEL, request_id=request_id)
        await eventually(rights.items, lambda items: items[-1]["error_type"] == "cancelled")
        await catalog.client.jetstream(timeout=3).publish(REQUEST_TRACK, b"garbage")
        [buried] = await eventually(lambda: rights.events(DEAD, DEAD_STREAM))
        assert buried["body"] == b"garbage"
        await rights.publish(COMMAND_SCAN, {"v": 1, "request_id": "a-scan"})
        await eventually(lambda: rights.rows("SELECT 1 FROM scans WHERE state = 'done'"))
        assert await catalog.refused() == []
    await server.kill()
    server.forget()
    await server.start()
    for durable in ("ingest", "watchdog"):
        await eventually(lambda d=durable: rights.has_consumer(d))  # type: ignore[misc]
    async with visitor(server.url_of("catalog")) as catalog:
        # What PostgreSQL knows is told again.
        await until_told(catalog, "audio.ready.*", 3)
        rights.add_album(3, 1)
        await ask(catalog, REQUEST_ALBUM, album_id=album_id(3))
        await until_told(catalog, "album.completed.*", 2)
        assert await catalog.refused() == []
    for service, one in running.items():
        assert one.app.health.conditions()["nats"].ok, service
        await one.end()
    assert server.violations() == []
