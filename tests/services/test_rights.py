"""The roles on a real PostgreSQL: what each service may not do, and how it gets what it may."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from services.local.postgres import Postgres
from shared.db.logins import give_logins
from shared.db.migrate import migrate
from shared.db.pool import Database
from shared.db.rights import rights
from shared.db.roles import given_rights, role_of
from shared.errors import DependencyDown, Misconfigured
from shared.settings import EVERY_SERVICE, Service
from tests.support.databases import url_of
from tests.support.stages import queue
from tests.support.world import World, track_id

_COLUMNS = """
SELECT c.relname, array_remove(array_agg(a.attname::text), NULL) AS columns
  FROM pg_class c
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S')
 GROUP BY c.relname
"""

# What a program that took a service over would try first.
_FORBIDDEN_TO_ALL = (
    "UPDATE events SET reason = 'x'",
    "DELETE FROM transitions",
    "UPDATE transitions SET to_state = 'completed'",
    "TRUNCATE events",
    "ALTER TABLE queue_items DISABLE TRIGGER ALL",
    "DROP TABLE events",
    "CREATE TABLE here (n int)",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SET session_replication_role = replica",
    "COPY events TO PROGRAM 'cat'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT rolpassword FROM pg_authid",
    "CREATE ROLE another",
    "SET ROLE pezzottify",
    # A trigger on a table of its own, to write a history that nothing made.
    (
        "CREATE TEMP TABLE t (LIKE queue_items); CREATE TRIGGER t AFTER INSERT ON t"
        " REFERENCING NEW TABLE AS arrived FOR EACH STATEMENT EXECUTE FUNCTION record_arrivals()"
    ),
)
_FORBIDDEN: dict[Service, tuple[str, ...]] = {
    "ingest": (
        "DELETE FROM queue_items",
        "DELETE FROM events",
        "INSERT INTO tickets (id, dest_path, priority) VALUES ('x', 'x', 1)",
        "SELECT magnet_uri FROM releases",
        "SELECT links FROM tickets",
        "DELETE FROM media_files",
    ),
    "ticketer": (
        "INSERT INTO queue_items (id) VALUES ('x')",
        "SELECT audio_uri FROM media_files",
        "UPDATE requests SET charged = false",
        "SELECT device_seed FROM bridge_server",
    ),
    "poller": (
        "INSERT INTO requests (id) VALUES ('x')",
        "SELECT links FROM tickets",
        "SELECT magnet_uri FROM releases",
        "UPDATE media_files SET audio_uri = 'x'",
        "DELETE FROM tickets",
    ),
    "fetcher_writer": (
        "INSERT INTO requests (id) VALUES ('x')",
        "SELECT links FROM tickets",
        "SELECT magnet_uri FROM releases",
        "SELECT device_seed FROM bridge_server",
        "DELETE FROM queue_items",
    ),
    "watchdog": (
        "DELETE FROM queue_items",
        "SELECT links FROM tickets",
        "UPDATE item_requesters SET withdrawn_at = now()",
    ),
    "reaper": (
        "SELECT magnet_uri FROM releases",
        "SELECT links FROM tickets",
        "INSERT INTO events (kind, actor) VALUES ('item', 'x')",
        "UPDATE tickets SET state = 'closed'",
        "SELECT audio_uri FROM media_files",
    ),
    "bridge": (
        "UPDATE queue_items SET stage = 'completed'",
        "UPDATE media_files SET audio_uri = 'x'",
        "INSERT INTO events (kind, actor) VALUES ('item', 'x')",
        "SELECT id FROM tickets",
        "UPDATE requests SET settled_at = now()",
    ),
}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection outside every pool."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("service", EVERY_SERVICE)
async def test_what_a_service_may_not_do(database_url: str, service: Service) -> None:
    """Its login reads no secret of another, rewrites no history, and gains no right."""
    others = [role_of(other) for other in EVERY_SERVICE if other != service]
    async with connected(url_of(service, database_url)) as connection:
        for statement in (
            *_FORBIDDEN_TO_ALL,
            *_FORBIDDEN[service],
            *(f"SET ROLE {other}" for other in others),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
            await connection.execute("DROP TABLE IF EXISTS pg_temp.t")
        assert await connection.fetchval("SELECT current_user") == f"login_{service}"


async def test_the_roles_have_what_the_list_says(database_url: str) -> None:
    """Role by table by privilege, as PostgreSQL has it: more is taken away, less is given."""
    async with connected(database_url) as connection:
        columns = {row["relname"]: row["columns"] for row in await connection.fetch(_COLUMNS)}
        assert await given_rights(connection) == rights(columns)
        await connection.execute(
            "REVOKE ALL ON queue_items, queue_seq FROM pezzottify_ingest;"
            "REVOKE UPDATE (settled_at) ON requests FROM pezzottify_poller;"
            "GRANT ALL ON releases TO pezzottify_reaper;"
            "GRANT SELECT (links) ON tickets TO pezzottify_poller;"
            "ALTER TABLE tickets ADD COLUMN later text"
        )
        assert await given_rights(connection) != rights(columns)
        await migrate(database_url)
        columns["tickets"].append("later")
        assert await given_rights(connection) == rights(columns)


async def test_the_history_of_a_move_by_a_service_that_may_not_write_it(still: World) -> None:
    """The trigger writes the row with the rights of its owner, and finds the real tables whatever
    the session's path."""
    await queue(still, [track_id(1)])
    async with connected(url_of("reaper", still.database_url)) as connection:
        await connection.execute(
            "CREATE TEMP TABLE events (LIKE public.events); SET search_path = pg_temp, public"
        )
        await connection.execute(
            "UPDATE public.queue_items SET stage = 'failed', completed_at = 1, actor = 'reaper'"
        )
        assert await connection.fetchval("SELECT count(*) FROM pg_temp.events") == 0
    [moved] = await still.rows("SELECT stage FROM events WHERE actor = 'reaper'")
    assert moved["stage"] == "failed"


async def test_a_missing_right_pauses_and_burns_nothing(database_url: str) -> None:
    """An administrator has to mend that, by `migrate`; it is no item's fault."""
    database = Database(url_of("reaper", database_url))
    with pytest.raises(DependencyDown, match=r"permission denied for table releases; .*migrate"):
        async with database.connection() as connection:
            await connection.fetch("SELECT magnet_uri FROM releases")
    await database.close()


async def test_a_new_password_replaces_the_old_one(database_url: str) -> None:
    """No password is in a statement: PostgreSQL gets what it stores of one."""
    old, new = (
        database_url.replace(database_url.partition("@")[0], f"postgresql://rotated:{p}")
        for p in ("one", "tw%2Fo")
    )
    async with connected(database_url) as connection:
        await give_logins(connection, {"poller": old})
        async with connected(old) as poller:
            await poller.fetch("SELECT count(*) FROM tickets")
        await give_logins(connection, {"poller": new})
        async with connected(new) as poller:
            await poller.fetch("SELECT count(*) FROM tickets")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(old)
        for unusable in (database_url, "postgresql://only@host/x", "postgresql://a:%C3%A9@host/x"):
            with pytest.raises(Misconfigured, match="the URL of poller"):
                await give_logins(connection, {"poller": unusable})


async def test_an_owner_that_may_make_no_roles(postgres: Postgres) -> None:
    """As at many a hoster: the schema is made and used with the owner's own login."""
    async with connected(postgres.url()) as connection:
        await connection.execute("CREATE ROLE tenant LOGIN PASSWORD 'tenant'")
        await connection.execute("CREATE DATABASE tenant OWNER tenant TEMPLATE template0")
    url = postgres.url("tenant")
    url = url.replace(url.partition("@")[0], "postgresql://tenant:tenant")
    await migrate(url)
    with pytest.raises(Misconfigured, match="permission denied to create role"):
        await migrate(url, {"poller": url.replace("tenant:tenant", "apart:apart")})
    async with connected(url) as connection:
        await connection.execute("UPDATE queue_items SET priority = 1")


async def test_migrate_makes_the_logins_of_a_folder(database_url: str, tmp_path: Path) -> None:
    """A file for each service; what is missing is said in a line each, before anything is done."""

    async def run() -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", "migrate", "--logins", str(tmp_path)),
            env=os.environ | {"DATABASE_URL": database_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    code, said = await run()
    assert code == 1
    assert [line.partition(": wants")[0] for line in said.splitlines()] == [
        str(tmp_path / f"database_url_{service}") for service in EVERY_SERVICE
    ]
    server = database_url.partition("@")[2]
    urls = {s: f"postgresql://folder_{s}:secret@{server}" for s in EVERY_SERVICE}
    for service, url in urls.items():
        (tmp_path / f"database_url_{service}").write_text(url + "\n")
    code, said = await run()
    assert code == 0, said
    assert "secret" not in said
    async with connected(urls["bridge"]) as connection:
        await connection.fetch("SELECT count(*) FROM bridge_requests")
