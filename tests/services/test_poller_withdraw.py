"""§2.5: Torrentino forgets cancels. From every state a withdrawn ticket comes to rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.local.torrentino import StandinConfig
from tests.services.test_ingest_cancel import cancel, queued
from tests.services.test_ingest_retry import retry
from tests.support.ingest_helpers import serve
from tests.support.stages import one, queue, stages, tickets
from tests.support.world import World, eventually, make_world, track_id


@pytest.fixture
async def busy(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    """A Torrentino that takes its time in every state, and forgets cancels as the real one."""
    config = StandinConfig(acquire_s=0.3, download_s=0.3, convert_s=0.6, place_s=0.3, tick_s=0.05)
    async with make_world(tmp_path, database_url, config) as made:
        made.env["POLL_INTERVAL_S"] = "0.05"
        yield made


@pytest.mark.parametrize("state", ["acquiring", "downloading", "converting", "placing"])
async def test_cancelled_at_work(busy: World, state: str) -> None:
    """Withdrawn and retried while Torrentino searches, downloads, converts or places: never two
    live tickets, late deliveries are thrown away, and the second ticket's file arrives."""
    [track] = busy.add_album(1, 1)
    api = await serve(busy)
    item_id = await queued(api, track, "A")
    async with stages(busy) as by_hand:
        await by_hand.ticket()
        await eventually(lambda: _in_state(busy, state))
        await cancel(api, item_id, "A")
        await retry(api, item_id, "A")

        async def again() -> int:
            await by_hand.poll()
            assert len(busy.live_tickets()) <= 1, "two live tickets for one track"
            return await by_hand.ticket()

        await eventually(again)
        old, new = await tickets(busy)
        assert old["state"] == "closed"
        first = busy.standin.tickets()[0]
        assert first["state"]["type"] in {"cancelled", "failed", "completed"}  # type: ignore[index]
        await by_hand.clean()
        assert not Path(old["dest_path"]).exists()
        await by_hand.until_remote("completed", "cancelled", "failed")
        await by_hand.poll()
        await by_hand.fetch()
        item = await one(busy)
        assert (item["status"], item["ticket_id"]) == ("COMPLETED", new["id"])
        assert first == busy.standin.tickets()[0], "it came back to life"
        await by_hand.clean()
        assert busy.ticket_folders() == []


async def _in_state(world: World, state: str) -> bool:
    return any(t["state"]["type"] == state for t in world.standin.tickets())  # type: ignore[index]


async def test_a_stopped_orchestrator_stalls_nothing(still: World) -> None:
    """The stall timeout does not count while Torrentino works on no ticket at all."""
    async with stages(still, STALL_TIMEOUT_S="100") as by_hand:
        await queue(still, [track_id(1)])
        await by_hand.ticket()
        await by_hand.poll()
        await _idle(still, 200)
        await by_hand.poll()
        assert (await one(still))["stage"] == "searching"
        [ticket] = await tickets(still)
        assert ticket["state"] == "open"
        assert (datetime.now(UTC) - ticket["progressed_at"]).total_seconds() < 50


async def test_a_pending_ticket_waits_its_turn(tmp_path: Path, database_url: str) -> None:
    """One search at a time: pending does not stall while another ticket progresses, and does when
    nothing moves any more."""
    config = StandinConfig(acquire_s=600)
    async with (
        make_world(tmp_path, database_url, config) as world,
        stages(world, STALL_TIMEOUT_S="100") as by_hand,
    ):
        world.add_album(1, 2)
        await queue(world, [track_id(1001), track_id(1002)])
        await by_hand.ticket()
        await eventually(lambda: _in_state(world, "acquiring"))
        await by_hand.poll()
        rows = {row["remote_state"]: row["id"] for row in await tickets(world)}
        await _idle(world, 200, but=rows["acquiring"])
        await by_hand.poll()
        assert {item["stage"] for item in await world.items()} == {"searching"}
        await _idle(world, 200)
        await by_hand.poll()
        [stalled] = await world.rows(
            "SELECT * FROM queue_items WHERE ticket_id = $1", rows["pending"]
        )
        assert (stalled["stage"], stalled["error_type"]) == ("retry_wait", "stalled")


async def _idle(world: World, idle_s: int, *, but: str = "") -> None:
    """No progress of any ticket (`but` this one) for so long."""
    await world.execute(
        "UPDATE tickets SET progressed_at = now() - make_interval(secs => $1) WHERE id <> $2",
        float(idle_s),
        but,
    )


async def test_tickets_that_wait_for_a_person_keep_no_place(still: World) -> None:
    """MAX_TICKETS_IN_FLIGHT bounds what Torrentino works on: ten times as many may wait beside."""
    async with stages(still, MAX_TICKETS_IN_FLIGHT="1") as by_hand:
        await queue(still, [track_id(number) for number in range(1, 14)])
        for expected in range(1, 12):
            assert await by_hand.ticket() == 1, expected
            assert await by_hand.ticket() == 0, "the only place is taken"
            item = next(i for i in await still.items() if i["stage"] == "searching")
            by_hand.set_state(item, type="needs_approval", candidates=[])
            await by_hand.poll()
        assert await by_hand.ticket() == 0, "too many wait for a person"
