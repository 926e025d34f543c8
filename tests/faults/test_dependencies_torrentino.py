"""Torrentino down, refusing, strange, slow, emptied, and restarted in the middle of its work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.local.torrentino import StandinConfig
from tests.support.load import SECONDS, some_events, under_load
from tests.support.outcomes import outcome
from tests.support.proxy import proxied
from tests.support.stages import queue, stages
from tests.support.world import Running, World, eventually, make_world


async def _noticed(running: Running) -> None:
    breaker = running.app.health.breaker("torrentino")

    async def open_() -> bool:
        return not breaker.ok

    await eventually(open_)


@pytest.mark.parametrize("fault", ["down", "html", "unauthorized"])
async def test_torrentino_does_not_do_its_work(world: World, fault: str) -> None:
    """L-41: the stage pauses and says so, no attempt is used, and work continues by itself."""
    names = {"down": "answers 503", "html": "answers HTML", "unauthorized": "answers 401"}
    async with under_load(world, f"Torrentino {names[fault]}") as (running, timed):
        await some_events(world, 16)
        setattr(world.faults, fault, True)
        await _noticed(running)
        await _says_what_is_paused(running, alarm=None if fault == "down" else "configuration")
        setattr(world.faults, fault, False)
        timed.removed()
    assert running.api is not None
    stats = (await running.api.get("/v1/download/admin/stats")).json()
    assert stats["paused"] == []


async def _says_what_is_paused(running: Running, *, alarm: str | None) -> None:
    """The statistics and the waiting items tell what is away, since when, why and until when."""
    assert running.api is not None
    stats = (await running.api.get("/v1/download/admin/stats")).json()
    stopped = {entry["stage"]: entry for entry in stats["paused"]}
    assert set(stopped) == {"ticketing", "polling"}
    said = stopped["ticketing"]
    assert (said["service"], said["dependency"], said["alarm"]) == ("ticketer", "torrentino", alarm)
    assert said["why"]
    assert said["to_do"]
    assert abs(said["next_try_at"] - said["since"]) < 100
    if alarm:
        assert "TORRENTINO_" in said["to_do"]
    mine = (await running.api.get("/v1/download/my-requests")).json()["items"]
    waiting = {item["stage"]: item["waiting_for"] for item in mine}
    for stage in {"queued", "searching", "downloading"} & set(waiting):
        assert waiting[stage].startswith("torrentino: "), waiting


CALLS = ("POST /tickets", "GET /tickets", "GET /tickets/{id}")


@pytest.mark.parametrize("call", CALLS)
async def test_its_database_is_locked(world: World, call: str) -> None:
    """500 "database is locked", before and after the effect: repeated, found again, never twice."""
    async with under_load(world, f"Torrentino: database is locked, {call}") as (_, timed):
        world.faults.only = call
        world.faults.database_locked = 6
        world.faults.database_locked_after_effect = 3 if call.startswith("POST") else 0

        async def used_up() -> int:
            return world.faults.database_locked + world.faults.database_locked_after_effect

        if call != "GET /tickets":  # few tickets are read one by one
            await eventually(used_up, lambda left: left == 0)
        timed.removed()
        await world.until_ended(8)
        world.faults.database_locked = 0


async def test_its_database_is_emptied(world: World) -> None:
    """Tickets that are gone are asked for again; what was there is not lost with them."""
    world.faults.fates |= {f"song {number}": "stuck_downloading" for number in range(1001, 1007)}
    async with under_load(world, "Torrentino's database emptied") as (_, timed):
        await eventually(world.items, lambda items: _count(items, "downloading") == 6)
        world.faults.fates.clear()
        tickets = world.standin.core.tickets
        for ticket in tickets.every():
            tickets.delete(ticket, by="a test")
        timed.removed()


def _count(items: list[dict[str, object]], stage: str) -> int:
    return sum(item["stage"] == stage for item in items)


async def test_it_restarts_under_load(world: World) -> None:
    """What it was at work on when it ended is found to be stranded, and asked for again."""
    async with under_load(
        world, "Torrentino restarted under load", items=20, STALL_TIMEOUT_S="2"
    ) as (_, timed):
        for events in (60, 100):
            await some_events(world, events)
            await world.standin.restart()
        timed.removed()


@pytest.mark.parametrize("state", ["acquiring", "converting", "placing"])
async def test_a_stranded_ticket_burns_nothing(world: World, state: str) -> None:
    """§7.1: in a state in which nothing works on it, it is withdrawn and asked for again."""
    [track] = world.add_album(1, 1, seconds=SECONDS)
    world.faults.fates["song 1001"] = "stuck_downloading"
    async with stages(world, STALL_TIMEOUT_S="3600") as by_hand:
        async with outcome(world, f"Torrentino restarted, ticket stuck in {state}") as timed:
            await queue(world, [track], seconds=SECONDS)
            await by_hand.ticket()
            await by_hand.until_remote("downloading")
            [item] = await world.items()
            by_hand.set_state(item, type=state)
            await by_hand.poll()
            # Not yet: it may be at work.
            assert len(world.standin.tickets()) == 1
            await world.execute("UPDATE tickets SET progressed_at = now() - interval '3601 s'")
            world.faults.fates.clear()
            timed.removed()
            await by_hand.poll()
            [item] = await world.items()
            assert (item["stage"], item["retry_count"]) == ("queued", 0)
            assert "nothing there works on it" in item["reason"]

            async def arrived() -> bool:
                await by_hand.poll()
                await by_hand.ticket()
                await by_hand.fetch()
                return bool((await world.items())[0]["stage"] == "completed")

            await eventually(arrived)
        assert [t["state"]["type"] for t in world.standin.tickets()].count("completed") == 1  # type: ignore[index]


async def test_what_is_at_work_is_not_stranded(tmp_path: Path, database_url: str) -> None:
    """A conversion that takes long, and is in the pipeline's list, continues."""
    config = StandinConfig(acquire_s=0.0, download_s=0.05, tick_s=0.01, convert_s=3600)
    async with make_world(tmp_path, database_url, config) as world:
        [track] = world.add_album(1, 1, seconds=SECONDS)
        async with stages(world, STALL_TIMEOUT_S="36000") as by_hand:
            await queue(world, [track], seconds=SECONDS)
            await by_hand.ticket()
            await by_hand.until_remote("converting")
            await by_hand.poll()
            await world.execute("UPDATE tickets SET progressed_at = now() - interval '5 hours'")
            await by_hand.poll()
            [item] = await world.items()
            assert item["stage"] == "processing"


async def _look_at_once(world: World) -> None:
    """What it made and could not tell is looked for after 15 s: no need to wait for them."""

    async def all_asked_for() -> bool:
        await world.execute("UPDATE queue_items SET due_at = now() WHERE stage = 'queued'")
        return not _count(await world.items(), "queued") + _count(await world.items(), "ticketing")

    await eventually(all_asked_for)


async def test_the_network_is_cut_in_mid_answer(world: World) -> None:
    """Answers that end after some bytes, to reads and creations, are neither believed nor lost."""
    async with proxied(world.standin.url) as (proxy, url):
        world.env["TORRENTINO_URL"] = url
        async with under_load(world, "Torrentino's answers cut in the middle") as (running, timed):
            await some_events(world, 14)
            proxy.cut()
            proxy.cut_after = 200
            await _noticed(running)
            proxy.cut_after = None
            timed.removed()
            await _look_at_once(world)
        await world.close()


async def test_torrentino_is_silent(world: World) -> None:
    """Calls that hang stop neither fetching nor requests; then work continues."""
    async with proxied(world.standin.url) as (proxy, url):
        world.env["TORRENTINO_URL"] = url
        async with under_load(world, "Torrentino silent (black hole)", items=6) as (running, timed):
            await eventually(world.items, lambda items: _count(items, "completed") >= 1)
            proxy.hold()
            assert running.api is not None
            answer = await running.api.get("/v1/download/my-requests")
            assert answer.status_code == 200
            await _noticed(running)
            # Whatever Torrentino had placed before arrives meanwhile.
            await eventually(
                world.items,
                lambda items: not any(_count(items, s) for s in ("ready", "fetching", "verifying")),
            )
            proxy.cut()
            proxy.flow()
            timed.removed()
            await _look_at_once(world)
        await world.close()


@pytest.mark.skipif("LONG_OUTAGES" not in os.environ, reason="LONG_OUTAGES=1 waits for it")
async def test_slow_creations_stop_nothing_else(world: World) -> None:
    """A POST that takes 30 s holds up neither polling nor fetching nor requests."""
    async with under_load(world, "Torrentino takes 30 s for each POST") as (_, timed):
        await eventually(world.items, lambda items: _count(items, "completed") >= 1)
        world.faults.delay_only, world.faults.delay_s = "POST /tickets", 30.0
        under_way = {ticket["dest_path"] for ticket in world.live_tickets()}
        await eventually(
            world.items,
            lambda items: _count(items, "completed") >= len(under_way),
            within_s=9,
        )
        world.faults.delay_s = 0.0
        timed.removed()
