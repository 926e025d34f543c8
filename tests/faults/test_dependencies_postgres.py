"""PostgreSQL restarted, killed, refusing, silent, full, and gone in the middle of a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from services.ingest.__main__ import build as build_ingest
from services.local.postgres import Postgres
from services.local.servers import free_port
from shared.app import make_app
from shared.bus.subjects import REQUEST_TRACK
from shared.db import pool
from shared.db.migrate import migrate
from shared.db.pool import Database
from shared.errors import DependencyDown
from shared.web import WebServer
from tests.support.invariants import check_the_end
from tests.support.load import SECONDS, some_events, under_load
from tests.support.outcomes import outcome
from tests.support.proxy import Moment, Proxy, proxied
from tests.support.stages import Stages, held_by, queue, stages
from tests.support.world import ADMIN, World, album_id, eventually, make_world


@asynccontextmanager
async def _own_world(
    folder: Path, *, max_connections: int = 50
) -> AsyncIterator[tuple[World, Postgres]]:
    """A world with a PostgreSQL of its own."""
    postgres = Postgres(folder / "postgres", fsync=False, max_connections=max_connections)
    try:
        await postgres.start()
        await migrate(postgres.url())
        async with make_world(folder / "world", postgres.url()) as world:
            yield world, postgres
    finally:
        await postgres.stop(at_once=True)


@asynccontextmanager
async def _through_a_proxy(world: World) -> AsyncIterator[Proxy]:
    async with proxied(world.database_url) as (proxy, url):
        world.env["DATABASE_URL"] = url
        try:
            yield proxy
        finally:
            # What the services still write at their stop needs a way.
            proxy.flow()
            await world.close()


async def test_postgres_restarted_and_killed_under_load(folder: Path) -> None:
    """L-41: everything arrives after a restart and after a crash, and no attempt is burnt."""
    async with _own_world(folder) as (world, postgres):
        world.env["LEASE_S"] = "2"
        fault = "PostgreSQL restarted, then killed, under load"
        async with under_load(world, fault, items=20) as (running, timed):
            for events, end in ((40, postgres.stop), (80, postgres.kill)):
                await some_events(world, events)
                await end()
                await postgres.start()
            timed.removed()
        # It is known to be back without a call of /readyz.
        assert running.app.health.conditions()["postgres"].ok
        await running.end()


async def test_postgres_refuses_connections(world: World) -> None:
    """While there is no connection all work stands still; then it continues."""
    async with (
        _through_a_proxy(world) as proxy,
        under_load(world, "PostgreSQL refuses connections") as (running, timed),
    ):
        await some_events(world, 30)
        await proxy.refuse()
        breaker = running.app.health.breaker("postgres")
        await eventually(_value(lambda: breaker.ok), lambda ok: not ok)
        await proxy.listen()
        timed.removed()


async def test_postgres_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that hang are given up after their time, and new ones made."""
    monkeypatch.setattr(pool, "COMMAND_TIMEOUT_S", 1)
    monkeypatch.setattr(pool, "CONNECT_TIMEOUT_S", 1)
    world.env["LEASE_S"] = "2"
    async with (
        _through_a_proxy(world) as proxy,
        under_load(world, "PostgreSQL silent (black hole)") as (running, timed),
    ):
        await some_events(world, 30)
        proxy.hold()
        breaker = running.app.health.breaker("postgres")
        await eventually(_value(lambda: breaker.ok), lambda ok: not ok)
        proxy.flow()
        timed.removed()


async def test_only_the_answers_of_postgres_are_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was carried out and never confirmed is neither lost nor done twice."""
    monkeypatch.setattr(pool, "COMMAND_TIMEOUT_S", 1)
    monkeypatch.setattr(pool, "CONNECT_TIMEOUT_S", 1)
    world.env["LEASE_S"] = "2"
    async with (
        _through_a_proxy(world) as proxy,
        under_load(world, "PostgreSQL's answers lost, one way") as (running, timed),
    ):
        await some_events(world, 30)
        proxy.hold("down")
        breaker = running.app.health.breaker("postgres")
        await eventually(_value(lambda: breaker.ok), lambda ok: not ok)
        proxy.cut()
        proxy.flow()
        timed.removed()


async def test_one_connection_is_enough(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """L-20: no task asks for a second connection while it has one: a pool of one serves all."""
    monkeypatch.setattr(Database.__init__, "__kwdefaults__", {"max_size": 1})
    monkeypatch.setattr(pool, "CONNECT_TIMEOUT_S", 3)
    async with under_load(world, "PostgreSQL pool of one connection") as (running, _):
        assert running.app.database.max_size == 1
    assert "postgres" not in running.app.health.conditions() or (
        running.app.health.breaker("postgres").closed
    )


async def test_connections_that_became_read_only_are_replaced(
    postgres: Postgres, database_url: str
) -> None:
    """F27: sessions keep to be read-only after a promotion: they are closed, and new ones made."""
    name = database_url.rpartition("/")[2]
    administrator = await asyncpg.connect(postgres.url("postgres"))
    database = Database(database_url, max_size=3)
    write = "UPDATE installation SET media_root_id = media_root_id"
    try:
        await administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with (
            database.connection() as one,
            database.connection() as two,
            database.connection() as three,
        ):
            for each in (one, two, three):
                await each.fetchval("SELECT 1")
        await administrator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        with pytest.raises(DependencyDown, match="read-only"):
            async with database.connection() as connection:
                await connection.execute(write)
        for _ in range(3):
            async with database.transaction() as connection:
                await connection.execute(write)
    finally:
        await database.close()
        await administrator.close()


async def test_postgres_has_no_connection_left(folder: Path) -> None:
    """`too many clients` is an outage like any other."""
    async with _own_world(folder, max_connections=20) as (world, _):
        async with under_load(world, "PostgreSQL: too many clients") as (running, timed):
            await some_events(world, 20)
            others = await _all_connections(world)
            # What has connections lives on, so they are ended.
            await others[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'pezzottify-downloads'"
            )
            others += await _all_connections(world)
            breaker = running.app.health.breaker("postgres")
            await eventually(_value(lambda: breaker.ok), lambda ok: not ok)
            for other in others:
                await other.close()
            await eventually(lambda: _has_room(world))
            timed.removed()
        await running.end()


async def _has_room(world: World) -> bool:
    try:
        return bool(await world.rows("SELECT 1"))
    except asyncpg.TooManyConnectionsError:
        return False


async def _all_connections(world: World) -> list[asyncpg.Connection[asyncpg.Record]]:
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        while True:
            taken.append(await asyncpg.connect(world.database_url))
    except asyncpg.TooManyConnectionsError:
        return taken


def _value(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def looking() -> bool:
        return look()

    return looking


async def _leases_over(by_hand: Stages) -> None:
    """What a worker may hold without knowing comes back by its lease."""
    await by_hand.world.execute(
        "UPDATE queue_items SET lease_until = now() WHERE lease_until IS NOT NULL"
    )
    await by_hand.give_back()


async def _to_the_end(world: World, by_hand: Stages) -> None:
    """Every step again until the only item is completed."""
    for _ in range(5):
        await _leases_over(by_hand)
        await held_by(by_hand.ticket)
        if (await world.items())[0]["stage"] != "completed":
            await by_hand.until_remote("completed")
        await held_by(by_hand.poll)
        await held_by(by_hand.fetch)
        if (await world.items())[0]["stage"] == "completed":
            break
    await by_hand.clean()


# Which step of a service, and the number of its commit in it.
_STEPS = (("claim", 1), ("record", 2), ("poll", 1), ("complete", 1))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("step", "number"), _STEPS)
async def test_failover_in_a_commit(world: World, step: str, number: int, moment: Moment) -> None:
    """L-33: the connection ends in a commit, carried out or not: nothing doubled, nothing lost."""
    [track] = world.add_album(1, 1, seconds=SECONDS)
    async with _through_a_proxy(world) as proxy, stages(world) as by_hand:
        bus = asyncio.create_task(by_hand.app.bus.run(stop := asyncio.Event()))
        await by_hand.app.bus.connected.wait()
        await queue(world, [track], seconds=SECONDS)
        fault = f"PostgreSQL cut {moment} COMMIT: {step}"
        async with outcome(world, fault) as timed:
            await _until(step, by_hand)
            proxy.lose_commit(moment, number=number)
            do = {"poll": by_hand.poll, "complete": by_hand.fetch}.get(step, by_hand.ticket)
            await held_by(do)
            assert proxy.commit_lost.is_set()
            timed.removed()
            await _to_the_end(world, by_hand)
        await by_hand.app.relay.run_once()
        await check_the_end(world, [track])
        stop.set()
        await bus


async def _until(step: str, by_hand: Stages) -> None:
    """Everything that comes before this step."""
    if step in ("poll", "complete"):
        await by_hand.ticket()
        await by_hand.until_remote("completed")
    if step == "complete":
        await by_hand.poll()


@asynccontextmanager
async def _ingest_alone(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Ingest's own duties without those of every process, whose commits come in between."""
    app = make_app(world.settings(["ingest"]), name="alone")
    duties, stop = build_ingest(app), asyncio.Event()
    tasks = [asyncio.create_task(duty.run(stop)) for duty in duties]
    tasks.append(asyncio.create_task(app.bus.run(stop)))
    [server] = [duty for duty in duties if isinstance(duty, WebServer)]
    await server.started.wait()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", headers=ADMIN, timeout=30
    ) as api:
        yield api
    stop.set()
    await asyncio.gather(*tasks)
    for close in (*app.closers, app.database.close):
        await close()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_failover_while_a_request_is_accepted(world: World, moment: Moment) -> None:
    """Over HTTP the caller gets 503 and repeats, over NATS it comes again by itself: one item."""
    tracks = world.add_album(1, 2, seconds=SECONDS)
    async with _through_a_proxy(world) as proxy:
        fault = f"PostgreSQL cut {moment} COMMIT: accept a request"
        async with outcome(world, fault) as timed:
            async with _ingest_alone(world) as api:
                # The first look at the media root notes which it is.
                await api.get("/v1/download/admin/stats")
                proxy.lose_commit(moment)
                first = await api.post(f"/v1/download/track/{tracks[0]}")
                assert first.status_code == 503
                assert "Retry-After" in first.headers
                again = await api.post(f"/v1/download/track/{tracks[0]}")
                assert again.status_code == 202
                assert again.json()["deduplicated"] == (moment == "after")
                proxy.lose_commit(moment)
                body = {"v": 1, "request_id": "a-request", "user_id": "42", "track_id": tracks[1]}
                await world.publish(REQUEST_TRACK, body)
                await proxy.commit_lost.wait()
                timed.removed()
                await eventually(world.items, lambda items: len(items) == 2)
            asked = await world.rows("SELECT 1 FROM requests WHERE id = 'a-request'")
            assert len(asked) == 1
            await world.run()
            await world.until_ended(2)
        await check_the_end(world, tracks)


async def test_a_stop_while_postgres_is_silent(world: World) -> None:
    """L-26: SIGTERM while PostgreSQL does not answer: exit 0 within the grace, nothing is lost."""
    world.add_album(1, 8, seconds=SECONDS)
    grace_s = 6.0
    async with (
        _through_a_proxy(world) as proxy,
        outcome(world, "SIGTERM while PostgreSQL is silent") as timed,
    ):
        world.env["PORT"] = str(free_port())
        process = await world.spawn(SHUTDOWN_GRACE_S=str(grace_s), LEASE_S="2")
        await _ask_a_process(world)
        await some_events(world, 30)
        proxy.hold()
        # Every loop runs into it, so that the stop finds calls that hang.
        await eventually(_value(lambda: proxy.held > 3))
        started = asyncio.get_running_loop().time()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), grace_s + 5) == 0
        # A busy machine takes a moment to end a process.
        assert asyncio.get_running_loop().time() - started < grace_s + 1
        proxy.flow()
        timed.removed()
        await world.run(LEASE_S="2", PORT="0")
        await world.until_ended(8)


async def _ask_a_process(world: World) -> None:
    async with httpx.AsyncClient(headers=ADMIN) as api:

        async def accepted() -> bool:
            url = f"http://127.0.0.1:{world.env['PORT']}/v1/download/album/{album_id(1)}"
            try:
                return (await api.post(url)).is_success
            except httpx.HTTPError:
                return False

        await eventually(accepted)


async def test_work_outlives_its_lease_while_postgres_is_away(world: World) -> None:
    """A lease that could not be renewed does not end the work: the fence decides."""
    [track] = world.add_album(1, 1, seconds=SECONDS)
    async with _through_a_proxy(world) as proxy, stages(world) as by_hand:
        async with outcome(world, "PostgreSQL away longer than a lease") as timed:
            await queue(world, [track], seconds=SECONDS)
            await by_hand.until_ready()
            [work] = await by_hand.fetcher.store.claim(1)
            await proxy.refuse()
            with by_hand.leases.holding(work.claim):
                with pytest.raises(DependencyDown):
                    await by_hand.leases.run_once()
                assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
            await proxy.listen()
            # The reaper was faster: what the worker wants to write now finds another fence.
            await _leases_over(by_hand)
            await by_hand.fetcher.fetch([work])
            assert world.files() == {}
            timed.removed()
            await _to_the_end(world, by_hand)
        assert set(world.files()) == {track}
