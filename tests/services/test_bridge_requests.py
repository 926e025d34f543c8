"""Requests of the catalog server: taken over, followed, and ended there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from tests.support.bridged import Bridged, bridged
from tests.support.waits import eventually
from tests.support.world import World


@pytest.fixture
async def bridge(still: World) -> AsyncIterator[Bridged]:
    """A still world with a catalog server."""
    async with bridged(still) as made:
        yield made


@pytest.mark.parametrize(
    ("close", "how", "status"),
    [
        ("delete", "deleted", None),
        ("leave", "left", "PENDING"),
        ("receipt", "receipt", "COMPLETED"),
    ],
)
async def test_what_is_pressed_is_queued_and_ends_there_once_it_plays(
    bridge: Bridged, close: str, how: str, status: str | None
) -> None:
    """Must hold 6: an item within 5 s, under the user who pressed; ended as BRIDGE_CLOSE says."""
    tracks = bridge.world.add_album(1, 3)
    bridge.server.ingestion = True
    await bridge.run("ingest", BRIDGE_CLOSE=close, BRIDGE_POLL_S="5")
    await eventually(lambda: _read(bridge), within_s=10)
    remote_id, pressed_at = await bridge.press(1), time.monotonic()
    items = await bridge.until_items(3)
    assert time.monotonic() - pressed_at < 5
    assert {item["requested_by_user_id"] for item in items} == {bridge.listener}
    assert {item["priority"] for item in items} == {2}
    await bridge.until_state(remote_id, "followed")
    assert remote_id in bridge.server.queue
    await bridge.place(*tracks)
    await bridge.publish(*tracks)
    row = await bridge.until_state(remote_id, "ended")
    assert (row["how"], row["problem"]) == (how, None)
    found = bridge.server.queue.get(remote_id)
    assert (found.status if found else None) == status
    bells = [bell["user_id"] for bell in bridge.server.bells]
    assert bells == ([bridge.listener] if close == "receipt" else [])
    assert (
        await bridge.world.rows("SELECT track_id FROM media_files WHERE playable_at IS NULL") == []
    )


async def _read(bridge: Bridged) -> bool:
    return any(path.endswith("/admin/requests") for _, path, _ in bridge.server.calls)
