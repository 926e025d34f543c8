"""Migrations: forward, once, however many start, and one line when they cannot."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from services.local.postgres import Postgres
from services.local.servers import free_port
from shared.db.migrate import head, migrate
from tests.support.waits import eventually

_NATS = "nats://127.0.0.1:1"


async def _start(url: str, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "migrate", *args),
        env=os.environ | {"DATABASE_URL": url, "NATS_URL": _NATS},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _end(process: asyncio.subprocess.Process) -> str:
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return output.decode()


async def _empty(postgres: Postgres, name: str) -> str:
    # From template0: other tests' sessions may be in the usual one.
    await postgres.create_database(name, template="template0")
    return postgres.url(name)


async def _tables(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        return [row["relname"] for row in rows]
    finally:
        await connection.close()


async def test_two_at_once_migrate_once(postgres: Postgres) -> None:
    """Two that start at the same moment on an empty database both end well, with one schema."""
    url = await _empty(postgres, "migrate_twice")
    processes = [await _start(url), await _start(url)]
    outputs = [await _end(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert all(head() in output for output in outputs)
    assert {"queue_items", "tickets", "events", "media_files"} <= set(await _tables(url))


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    """A schema that is up to date stays as it is."""
    before = await _tables(database_url)
    assert await migrate(database_url) == head()
    assert await _tables(database_url) == before


async def test_waits_for_postgres() -> None:
    """Started before PostgreSQL, `migrate` waits for it."""
    with tempfile.TemporaryDirectory(prefix="pezzottify-test-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "postgres", port=free_port(), fsync=False)
        process = await _start(server.url())
        try:
            await server.start()
            output = await _end(process)
        finally:
            await server.stop()
    assert process.returncode == 0, output


async def test_waits_for_the_database(postgres: Postgres) -> None:
    """PostgreSQL is up before its setup has created the database: `migrate` waits for that."""
    process = await _start(postgres.url("migrate_late"))
    # Its first try has failed: PostgreSQL has logged it.

    async def refused() -> bool:
        return 'database "migrate_late" does not exist' in postgres.log.read_text(encoding="utf-8")

    await eventually(refused)
    await _empty(postgres, "migrate_late")
    output = await _end(process)
    assert process.returncode == 0, output


async def test_no_database_or_role_is_one_line(postgres: Postgres) -> None:
    """What is still missing at the end of the wait is named in one line."""
    url = postgres.url("no_such")
    stranger = url.replace(url.partition("@")[0], "postgresql://stranger:x")
    for at, missing in ((url, 'database "no_such"'), (stranger, 'user "stranger"')):
        process = await _start(at, "--wait-s", "0")
        output = await _end(process)
        assert process.returncode == 1
        assert output.startswith("postgres: ")
        assert missing in output
        assert len(output.splitlines()) == 1, output


async def test_gives_up_with_one_line() -> None:
    """No server at the end of the wait: one line that says what is missing."""
    process = await _start(f"postgresql://me:secret@127.0.0.1:{free_port()}/x", "--wait-s", "0")
    started = time.monotonic()
    output = await _end(process)
    assert process.returncode == 1
    assert output.startswith("postgres: ")
    assert len(output.splitlines()) == 1
    assert "secret" not in output
    assert time.monotonic() - started < 15


async def test_a_bad_url_is_one_line() -> None:
    """A URL that cannot be one is told by the name of its variable, without its password."""
    for url in ("mysql://me:secret@host/x", "postgresql://me:se/cret@host:5432/x", "postgresql"):
        process = await _start(url)
        output = await _end(process)
        assert process.returncode == 1, output
        assert output.startswith("DATABASE_URL: ")
        assert len(output.splitlines()) == 1, output
        assert "cret" not in output


async def test_no_right_to_migrate_is_one_line(postgres: Postgres) -> None:
    """A user who may not make tables learns that in one line."""
    url = await _empty(postgres, "migrate_refused")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE ROLE guest LOGIN PASSWORD 'welcome'")
    await connection.close()
    process = await _start(url.replace(url.partition("@")[0], "postgresql://guest:welcome"))
    output = await _end(process)
    assert process.returncode == 1
    assert "permission denied" in output
    assert len(output.splitlines()) == 1, output


async def test_a_newer_schema_is_one_line(database_url: str) -> None:
    """The schema of a later version is left alone, and said to be one."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    process = await _start(database_url)
    output = await _end(process)
    assert process.returncode == 1
    assert "newer than this code" in output
    assert len(output.splitlines()) == 1, output
