"""Time that nobody watched, and clocks that jump: neither burns an attempt nor holds work up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.local.postgres import Postgres
from services.poller.downloads_store import TorrentsStore
from services.reaper.clock_watch import ClockWatch
from shared.db import health_reports, releases
from shared.db.pool import Database
from shared.db.releases import Budget
from shared.media.paths import temp_file
from shared.states import Stage
from tests.support.databases import copy_of
from tests.support.ingest_helpers import V1, serve
from tests.support.stages import Stages, one, queue, stages, tickets
from tests.support.world import World, as_user, track_id

# All that a row of `tickets` says of time, as if it had been written so much earlier or later.
_SHIFT = """
UPDATE tickets SET progressed_at = progressed_at - $1::interval,
       looked_at = looked_at - $1::interval, next_poll_at = next_poll_at - $1::interval,
       withdrawn_at = withdrawn_at - $1::interval, missing_at = missing_at - $1::interval,
       adding_at = adding_at - $1::interval
"""
HASH = "0123456789abcdef0123456789abcdef01234567"
DOWNLOADING = {"type": "downloading", "info_hash": HASH, "progress_pct": 40.0}

HALF_A_DAY = timedelta(hours=12)
A_DAY = timedelta(days=1)


@pytest.fixture
async def downloading(still: World) -> AsyncIterator[Stages]:
    """An item whose ticket downloads, read twice at 40 %."""
    async with stages(still, STALL_TIMEOUT_S="600", POLL_INTERVAL_S="30") as by_hand:
        await queue(still, [track_id(1)])
        await by_hand.ticket()
        by_hand.set_state(await one(still), **DOWNLOADING)
        # The stand-in's does not run, so that tests move its tickets; a stopped one stalls nothing.
        by_hand.poll_client.orchestrator = _running
        await by_hand.poll()
        await by_hand.poll()
        yield by_hand


async def _running() -> dict[str, object]:
    return {"running": True}


@pytest.mark.parametrize("gap", [HALF_A_DAY, -A_DAY], ids=["nobody looked", "clock went back"])
async def test_time_that_nobody_watched_is_no_stall(
    still: World, downloading: Stages, gap: timedelta
) -> None:
    """F24: all services off for half a day, or the clock jumps, while a download rests."""
    await still.execute(_SHIFT, gap)
    await downloading.poll_once()
    item, [ticket] = await one(still), await tickets(still)
    assert (item["stage"], item["retry_count"]) == ("downloading", 0)
    assert ticket["state"] == "open"
    idle_s = (datetime.now(UTC) - ticket["progressed_at"]).total_seconds()
    assert 0 <= idle_s < 60, idle_s


async def test_watched_time_is_a_stall(still: World, downloading: Stages) -> None:
    """F24: what was watched before the gap is not forgotten, and adds up with what comes after."""
    await still.execute("UPDATE tickets SET progressed_at = now() - interval '500 s'")
    # The read after the gap counts as one poll interval.
    for gap in (HALF_A_DAY, timedelta(seconds=40), timedelta(seconds=40)):
        assert (await one(still))["stage"] == "downloading"
        await still.execute(_SHIFT, gap)
        await downloading.poll()
    item = await one(still)
    assert (item["stage"], item["error_type"]) == ("retry_wait", "stalled")


async def test_time_without_the_torrent_client_is_no_stall(
    still: World, downloading: Stages
) -> None:
    """F24: the client away for most of the timeout, then back: it has to stall from there on."""
    [before] = await tickets(still)
    downloading.app.health.down("torrent_client", "away")
    for _ in range(3):
        await still.execute(
            "UPDATE tickets SET progressed_at = progressed_at - interval '20 s',"
            " looked_at = looked_at - interval '20 s'"
        )
        await downloading.poll()
    [after] = await tickets(still)
    assert after["progressed_at"] - before["progressed_at"] >= timedelta(seconds=-1)


_DIRECT = """
INSERT INTO tickets (id, dest_path, priority, kind, way, state, info_hash, torrent_title, ours,
                     remote_state, progressed_at, missing_at, looked_at, next_poll_at)
VALUES ('d', 'direct:d', 2, 'track', 'direct', 'open', $2, 'A release', true, 'downloading',
        now() - interval '60 s' - $1::interval, now() - interval '6 s' - $1::interval,
        now() - interval '1 s' - $1::interval, now() - $1::interval)
"""


@pytest.mark.parametrize("gap", [HALF_A_DAY, -A_DAY], ids=["nobody looked", "clock went back"])
async def test_a_direct_download_counts_watched_time_only(
    world: World, database: Database, gap: timedelta
) -> None:
    """F24: of its progress, and of being missing at the client."""
    await world.execute(_DIRECT, gap, HASH)
    store = TorrentsStore(database, poll_interval_s=5)
    [download] = await store.claim(limit=1)
    assert 59 < download.idle_s < 70
    assert download.missing_at is not None
    assert 5 < (download.now - download.missing_at).total_seconds() < 15
    async with database.transaction() as connection:
        await store.missing(connection, download)
    await world.execute("UPDATE tickets SET next_poll_at = now()")
    [again] = await store.claim(limit=1)
    assert 59 < again.idle_s < 70
    assert again.missing_at is not None
    assert 5 < (again.now - again.missing_at).total_seconds() < 15


async def test_a_poll_far_ahead_is_due(still: World, downloading: Stages) -> None:
    """F25: `next_poll_at` of a clock that was a day ahead."""
    await still.execute("UPDATE tickets SET next_poll_at = next_poll_at + interval '1 day'")
    downloading.set_state(await one(still), type="failed", error="Placement failed: x")
    await downloading.poll_once()
    assert (await one(still))["stage"] == "retry_wait"


# --- waits and leases of a clock that was ahead


@pytest.mark.parametrize("stage", [Stage.QUEUED, Stage.RETRY_WAIT, Stage.READY])
async def test_a_wait_of_a_clock_that_was_ahead_is_corrected(
    still: World, downloading: Stages, stage: Stage
) -> None:
    """F25: it begins again with its own length, and a right one is not touched."""
    waits = "UPDATE queue_items SET stage = $1, due_at = now() + interval '50 s', wait_s = 50"
    if stage is Stage.QUEUED:
        await still.execute("UPDATE queue_items SET stage = 'queued'")
    await still.execute(waits, stage)
    [right] = await still.items()
    await downloading.give_back()
    assert await still.items() == [right]
    await still.execute("UPDATE queue_items SET due_at = due_at + interval '1 day'")
    await downloading.give_back()
    [corrected] = await still.items()
    wait = corrected["due_at"] - datetime.now(UTC)
    assert timedelta(seconds=30) < wait <= timedelta(seconds=50)


async def test_what_arrived_while_the_clock_was_ahead_is_taken(
    still: World, by_hand: Stages
) -> None:
    """F25: a queued item that never had to wait."""
    await queue(still, [track_id(1)])
    await still.execute("UPDATE queue_items SET due_at = due_at + interval '1 day'")
    assert await by_hand.ticket_once() == 0
    await by_hand.give_back()
    assert await by_hand.ticket_once() == 1


async def test_a_lease_of_a_clock_that_was_ahead_ends(still: World, by_hand: Stages) -> None:
    """F25: after LEASE_S of the right clock, unless its worker renews it."""
    await queue(still, [track_id(1)])
    [work] = await by_hand.starter.store.claim(1, takes_new=True)
    await still.execute("UPDATE queue_items SET lease_until = lease_until + interval '1 day'")
    await by_hand.give_back()
    [item] = await still.items()
    assert item["stage"] == "ticketing"
    lease_s = by_hand.app.settings.lease_s
    assert item["lease_until"] - datetime.now(UTC) <= timedelta(seconds=lease_s)
    await still.execute(
        "UPDATE queue_items SET lease_until = lease_until - make_interval(secs => $1)", lease_s
    )
    await by_hand.give_back()
    assert (await one(still))["stage"] == "queued"
    assert work.claims


async def test_the_lease_of_a_scan_is_corrected_too(still: World, by_hand: Stages) -> None:
    """F25: another watchdog continues the scan after LEASE_S, not after a day."""
    await still.execute(
        "INSERT INTO scans (id, queue, scope, max_items, state, lease_until)"
        " VALUES ('s', false, '{}', 1, 'running', now() + interval '1 day')"
    )
    await by_hand.give_back()
    [scan] = await still.rows("SELECT lease_until - now() AS left FROM scans")
    assert scan["left"] <= timedelta(seconds=by_hand.app.settings.lease_s)


async def test_what_was_not_found_is_searched_for_in_time(still: World, by_hand: Stages) -> None:
    """F25: the search for what was not found lies no further ahead than its step of the ladder."""
    await still.execute(
        "INSERT INTO not_found (wanted, times, told, at, next_at) VALUES"
        " ('ahead', 1, '', now() + interval '1 day', now() + interval '2 days'),"
        " ('right', 2, '', now(), now() + interval '3 days')"
    )
    await by_hand.give_back()
    rows = await still.rows(
        "SELECT wanted, next_at - now() AS left, at <= now() AS past FROM not_found"
    )
    left = {row["wanted"]: row["left"] for row in rows}
    assert left["ahead"] <= timedelta(days=1)
    assert left["right"] > timedelta(days=2)
    assert all(row["past"] for row in rows)


async def test_searches_of_a_clock_that_was_ahead_use_no_budget(
    world: World, database: Database
) -> None:
    """F25: neither the gap nor the hour counts them, and the lease of a search is short."""
    await world.execute(
        "INSERT INTO searches_made SELECT now() + interval '1 day' FROM generate_series(1, 60)"
    )
    await world.execute("INSERT INTO searches (query, lease_until) VALUES ('q', now() + '1 day')")
    async with database.connection() as connection:
        turn = await releases.next_turn(connection, Budget(per_hour=60, gap_s=10), background=False)
        asked_s = await releases.asked_now_s(connection, "q")
        await connection.execute("UPDATE searches SET lease_until = NULL")
        answered_s = await releases.asked_now_s(connection, "q")
    assert (turn.wait_s, turn.left) == (0, 60)
    assert 0 < asked_s <= releases.ASKING_S
    assert answered_s == 0


async def test_a_report_of_a_clock_that_was_ahead_is_forgotten(still: World) -> None:
    """F25: a process that has ended does not keep work paused for a day."""
    async with stages(still) as by_hand:
        database = by_hand.app.database
        await still.execute(
            "INSERT INTO conditions (worker, dependency, ok, detail, since, said_at)"
            " VALUES ('gone', 'torrentino', false, 'away', now(), now() + interval '1 day')"
        )
        reports = health_reports.Conditions(database, by_hand.app.health, worker="me")
        assert "torrentino" not in await reports.read()


async def test_a_retry_of_a_waiting_item_means_now(world: World) -> None:
    """F25: not 409; its attempts stay used, and one that is being worked on cannot be retried."""
    api = await serve(world, "ingest")
    await queue(world, [track_id(1)], user_id="7")
    [item] = await world.items()
    retry = f"{V1}/items/{item['id']}/retry"
    assert (await api.post(retry, headers=as_user("7"))).status_code == 409
    await world.execute(
        "UPDATE queue_items SET retry_count = 2, due_at = now() + interval '1 day', wait_s = 60"
    )
    assert (await api.post(retry, headers=as_user("8"))).status_code == 404
    answer = await api.post(retry, headers=as_user("7"))
    assert answer.is_success, answer.text
    [item] = await world.items()
    assert item["due_at"] <= datetime.now(UTC)
    assert (item["stage"], item["retry_count"]) == ("queued", 2)


class _Clock:
    def __init__(self) -> None:
        self.monotonic_s = 0.0

    def now(self) -> datetime:
        raise NotImplementedError

    def monotonic(self) -> float:
        return self.monotonic_s


async def test_after_a_jump_no_lease_is_taken_to_have_run_out() -> None:
    """F24: the workers have LEASE_S to renew them; a clock that is set right by little is none."""
    clock = _Clock()
    watch = ClockWatch(clock, lease_s=60)

    async def trusts(database_s: float, *, answer_at_s: float | None = None) -> bool:
        async def ask() -> float:
            clock.monotonic_s = answer_at_s or clock.monotonic_s
            return database_s

        return await watch.trusts(ask)

    assert await trusts(1000.0)
    clock.monotonic_s = 5.0
    assert await trusts(1006.0)
    # The answer was given at 25 s, after a question at 5 s.
    assert await trusts(1025.0, answer_at_s=25.0)
    clock.monotonic_s = 5.0
    assert await trusts(1006.0)
    for at_s, database_s, trusted in [
        (10.0, 1010.0 + 86_400, False),
        (69.0, 1069.0 + 86_400, False),
        (71.0, 1071.0 + 86_400, True),
        (76.0, 1076.0, False),
        (137.0, 1137.0, True),
    ]:
        clock.monotonic_s = at_s
        assert await trusts(database_s) is trusted, at_s


# --- lost commits


async def test_two_copies_of_a_database_give_different_fences(
    postgres: Postgres, database_url: str, still: World
) -> None:
    """F26: restored from one snapshot, or after lost commits: no temporary name is given twice."""
    await queue(still, [track_id(1)])
    item = await one(still)
    given = []
    for number in range(2):
        url = await copy_of(postgres, database_url, f"{database_url.rpartition('/')[2]}_{number}")
        still.env["DATABASE_URL"] = url
        async with stages(still) as by_hand:
            [work] = await by_hand.starter.store.claim(1, takes_new=True)
            given.append(work.claims[0].fence)
    names = {temp_file(still.media, item["id"], fence) for fence in given}
    assert len(names) == 2
    assert all(0 <= fence < 2**63 for fence in given)
