"""What is between the services and PostgreSQL: poolers, replaced servers, aborted statements."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from services.local.postgres import Postgres
from services.local.servers import write_secret
from shared.clock import SystemClock
from shared.db import server
from shared.db.pool import Database
from shared.duty import PeriodicDuty
from shared.errors import DependencyDown, Misconfigured, StatementAborted
from shared.health import Health
from tests.support.ingest_helpers import V1, serve
from tests.support.pgbouncer import IGNORED, PoolMode, pgbouncer
from tests.support.proxy import proxied
from tests.support.stages import stages
from tests.support.world import World, eventually

# --- a pooler


@pytest.mark.parametrize(
    ("mode", "ignores"), [("transaction", ""), ("transaction", IGNORED), ("session", "")]
)
async def test_limits_are_in_force_behind_a_pooler(
    database_url: str,
    folder: Path,
    mode: PoolMode,
    ignores: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F28: PgBouncer refuses or drops the startup parameters: the limits hold all the same, and
    statements of many connections do not meet in one session.
    """
    monkeypatch.setitem(server.LIMITS, "statement_timeout", "300")
    # In session mode every connection of ours keeps one.
    sessions = 12 if mode == "session" else 3
    async with pgbouncer(database_url, folder, mode, ignores=ignores, sessions=sessions) as url:
        database = Database(url)
        try:
            for use in (database.connection, database.transaction):
                with pytest.raises(StatementAborted, match="pg_sleep"):
                    async with use() as connection:
                        await connection.fetchval("SELECT pg_sleep(10), $1::int", 1)

            async def ask(number: int) -> int:
                async with database.connection() as connection:
                    return int(await connection.fetchval(f"SELECT {number} + $1::int", 1))

            asked = await asyncio.gather(*(ask(number) for number in range(60)))
            assert asked == list(range(1, 61))
        finally:
            await database.close()


async def test_limits_are_in_force_without_a_pooler(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F28: as with one."""
    monkeypatch.setitem(server.LIMITS, "statement_timeout", "300")
    database = Database(database_url)
    try:
        with pytest.raises(StatementAborted, match="pg_sleep"):
            async with database.connection() as connection:
                await connection.fetchval("SELECT pg_sleep(10)")
        assert database.server is not None
        assert not database.server.pooled
    finally:
        await database.close()


async def test_a_pooler_without_transactions_is_refused(database_url: str, folder: Path) -> None:
    """F28: one line that names the variable and what to set."""
    async with pgbouncer(database_url, folder, "statement") as url:
        database = Database(url)
        with pytest.raises(Misconfigured, match=r"DATABASE_URL .* set its pool_mode"):
            async with database.connection():
                pass


async def test_an_album_arrives_through_a_pooler(world: World, folder: Path) -> None:
    """F28: PgBouncer in transaction mode serves all services; no attempt is burnt."""
    tracks = world.add_album(1, 3, seconds=2.0)
    async with pgbouncer(world.database_url, folder, "transaction") as url:
        world.env["DATABASE_URL"] = url
        running = await world.run()
        assert running.api is not None
        for track in tracks:
            assert (await running.api.post(f"{V1}/track/{track}")).status_code == 202
        await world.until_ended(3)
        assert set(world.files()) == set(tracks)
        assert [item["retry_count"] for item in await world.items()] == [0, 0, 0]
        assert running.app.health.breaker("postgres").closed
        await world.close()


# --- another server


async def test_connections_to_a_replaced_server_are_closed(
    postgres: Postgres, database_url: str, folder: Path
) -> None:
    """F27: another cluster behind the same address, while connections to the old one work."""
    name = database_url.rpartition("/")[2]
    other = Postgres(folder / "postgres", fsync=False, max_connections=10)
    secret = (postgres.folder / "password").read_text(encoding="utf-8").strip()
    other.folder.mkdir()
    write_secret(other.folder / "password", secret)
    await other.start()
    await other.create_database(name)
    which = "SELECT current_setting('port')"
    async with proxied(database_url) as (proxy, url):
        database = Database(url, max_size=3)
        try:
            async with database.connection() as one, database.connection() as two:
                assert [await each.fetchval(which) for each in (one, two)] == [
                    str(postgres.port)
                ] * 2
                proxy.lead_to(other.port)
                with capture_logs() as lines:
                    await database.check_server()
                assert [line["event"] for line in lines if "replaced" in line["event"]]
            for _ in range(3):
                async with database.connection() as connection:
                    assert await connection.fetchval(which) == str(other.port)
        finally:
            await database.close()
            await other.stop(at_once=True)


async def test_one_lost_connection_ends_the_others(postgres: Postgres, database_url: str) -> None:
    """F27: a server that ends a session may be on its way out: idle sessions are not used again."""
    database = Database(database_url, max_size=2)
    administrator = await asyncpg.connect(postgres.url("postgres"))
    try:
        async with database.connection() as one, database.connection() as two:
            pids = [await each.fetchval("SELECT pg_backend_pid()") for each in (one, two)]
        with pytest.raises(DependencyDown):  # noqa: PT012 (it is raised at the end)
            async with database.connection() as connection:
                pid = await connection.fetchval("SELECT pg_backend_pid()")
                await administrator.execute("SELECT pg_terminate_backend($1)", pid)
                await connection.fetchval("SELECT 1")
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") not in pids
    finally:
        await administrator.close()
        await database.close()


# --- an aborted statement


@pytest.mark.parametrize("how", ["statement", "lock"])
async def test_an_aborted_statement_is_no_outage(database: Database, how: str) -> None:
    """F29: PostgreSQL stays up, the duty pauses by itself, and the log names the statement."""
    health = Health(SystemClock())
    health.up("postgres")

    async def run_once() -> int:
        async with database.transaction() as first, database.transaction() as second:
            await first.execute("LOCK TABLE scans IN ACCESS EXCLUSIVE MODE")
            await second.execute(f"SET LOCAL {how}_timeout = 50")
            await second.fetchval("SELECT count(*) FROM scans")
        return 0

    duty = PeriodicDuty("counting", run_once, interval_s=1, health=health, rng=random.Random(1))
    with capture_logs() as lines:
        pause_s = await duty.step()
    assert pause_s
    assert health.breaker("postgres").closed
    [line] = [line for line in lines if line["event"] == "statement_aborted"]
    assert "FROM scans" in line["statement"]


async def test_a_request_whose_statement_is_aborted_gets_503(world: World) -> None:
    """F29: and PostgreSQL is not taken to be away."""
    api = await serve(world, "ingest")
    blocker = await asyncpg.connect(world.database_url)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE scans IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(api.get(f"{V1}/admin/scan/none"))
            waiting = await eventually(lambda: blocker.fetch(_WAITING))
            with capture_logs() as lines:
                await blocker.execute("SELECT pg_cancel_backend($1)", waiting[0]["pid"])
                assert (await asking).status_code == 503
        events = [line["event"] for line in lines]
        assert "statement_aborted" in events
        assert "dependency_down" not in events
        stats = (await api.get(f"{V1}/admin/stats")).json()
        assert stats["health"]["postgres"]["ok"]
        assert stats["paused"] == []
    finally:
        await blocker.close()


_WAITING = """
SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
 WHERE NOT l.granted AND d.datname = current_database()
"""


# --- durability


async def test_settings_that_lose_commits_are_named(
    postgres: Postgres, database_url: str, world: World
) -> None:
    """F26: synchronous_commit=off is named at the start, and in the statistics."""
    name = database_url.rpartition("/")[2]
    administrator = await asyncpg.connect(postgres.url("postgres"))
    await administrator.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await administrator.close()
    database = Database(database_url)
    with capture_logs() as lines:
        await database.check_server()
    [line] = [line for line in lines if line["event"] == "postgres_not_durable"]
    assert line["log_level"] == "warning"
    assert "synchronous_commit = off" in line["settings"]
    api = await serve(world, "ingest")
    stats = (await api.get(f"{V1}/admin/stats")).json()
    assert "synchronous_commit = off" in stats["health"]["postgres"]["not_durable"]


async def test_a_step_of_each_worker_through_a_pooler(still: World, folder: Path) -> None:
    """F28: what reads one moment, and what takes items in the order of the queue."""
    async with pgbouncer(still.database_url, folder, "transaction") as url:
        still.env["DATABASE_URL"] = url
        async with stages(still) as by_hand:
            assert await by_hand.give_back() == 0
            assert await by_hand.prune() == 0
            assert await by_hand.ticket() == 0
