"""The servers from wheels: no other user of the machine gets in, whichever user starts them."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from services.local import postgres as embedded
from services.local.postgres import Postgres
from services.local.servers import Nats, ServerFailed
from tests.support.shipped_nats import refusal_of

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def closed(folder: Path) -> Path:
    """A folder that only its owner may enter, as /root is."""
    made = folder / "closed"
    made.mkdir(mode=0o700)
    return made


@asynccontextmanager
async def running(server: Postgres | Nats) -> AsyncIterator[None]:
    """Started for the block."""
    await server.start()
    try:
        yield
    finally:
        await server.stop()


async def refused(url: str) -> bool:
    """Whether PostgreSQL refuses this URL."""
    try:
        connection = await asyncpg.connect(url)
    except asyncpg.InvalidPasswordError:
        return True
    await connection.close()
    return False


async def test_postgres_wants_its_password(closed: Path) -> None:
    """F8: without it, or with another one, no client gets in; no command line has it."""
    server = Postgres(closed / "postgres", fsync=False)
    async with running(server):
        password = server.url().partition("pezzottify:")[2].partition("@")[0]
        assert not await refused(server.url())
        assert await refused(server.url().replace(f":{password}@", "@"))
        assert await refused(server.url().replace(password, "wrong"))
        assert not any(password in word for word in psutil.Process(server.pid).cmdline())
    assert stat.S_IMODE((closed / "postgres").stat().st_mode) == 0o700


async def test_nats_wants_its_token(closed: Path) -> None:
    """F8: likewise."""
    server = Nats(closed / "nats")
    async with running(server):
        token = server.url.removeprefix("nats://").partition("@")[0]
        assert await refusal_of(server.url) is None
        for url in (server.url.replace(f"{token}@", ""), server.url.replace(token, "wrong")):
            assert "Authorization Violation" in str(await refusal_of(url))
        assert not any(token in word for word in psutil.Process(server.pid).cmdline())
    assert stat.S_IMODE((closed / "nats").stat().st_mode) == 0o700


@only_root
async def test_another_user_gets_in_nowhere(closed: Path) -> None:
    """F8: not by the port, and not by the files."""
    closed.chmod(0o755)
    server = Postgres(closed / "postgres", fsync=False)
    async with running(server):

        def as_another(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, user="games", capture_output=True, text=True, check=False, timeout=30
            )

        psql = await asyncio.to_thread(
            as_another, str(server.programs / "psql"), "-w", "-h", "127.0.0.1",
            *("-p", str(server.port), "-U", "pezzottify"),
            *("-c", "COPY (SELECT 1) TO PROGRAM 'id'", "postgres"),
        )  # fmt: skip
        assert psql.returncode != 0
        assert "password" in psql.stderr, psql.stderr
        read = await asyncio.to_thread(as_another, "cat", str(server.folder / "password"))
        assert "Permission denied" in read.stderr


@only_root
async def test_roots_server_has_no_right_of_roots(closed: Path) -> None:
    """F1, F8: below a folder that only root enters it runs as `nobody`, without a capability."""
    server = Postgres(closed / "postgres", fsync=False)
    async with running(server):
        process = psutil.Process(server.pid)
        assert process.username() == "nobody"
        told = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii").splitlines()
        rights = dict(line.split(":\t") for line in told if line.startswith("Cap"))
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(rights[kind], 16) == 0, kind
        connection = await asyncpg.connect(server.url())
        with pytest.raises(asyncpg.PostgresError, match="program"):
            await connection.execute(f"COPY (SELECT 1) TO PROGRAM 'ls {closed}'")
        await connection.close()


@only_root
async def test_programs_that_nobody_can_reach_are_copied(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F1: .venv lies below /root; the copy is open to read for all, to write for root alone."""
    wheel = embedded.wheel_folder()
    for name in (wheel.name, f"{wheel.name}.libs"):
        await asyncio.to_thread(
            shutil.copytree, wheel.with_name(name), closed / name, symlinks=True
        )
    monkeypatch.setattr(embedded, "wheel_folder", lambda: closed / wheel.name)
    server = Postgres(closed / "postgres", fsync=False)
    async with running(server):
        copy = Path((closed / "postgres/programs.path").read_text(encoding="utf-8"))
        assert server.programs.is_relative_to(copy)
        modes = {stat.S_IMODE(path.lstat().st_mode) & 0o022 for path in copy.rglob("*.so")}
        assert modes == {0}
        # As after a kill: the next one leaves no copy behind.
        await server.kill()
        again = Postgres(closed / "postgres", fsync=False)
        async with running(again):
            assert not copy.exists()
            second = again.programs
    assert not second.exists()


@pytest.mark.parametrize("owner", ["root", "nobody"])
async def test_a_cluster_of_before_is_closed(closed: Path, owner: str) -> None:
    """An older data folder, open to every client and owned by `nobody`: it gets a password."""
    server = Postgres(closed / "postgres", fsync=False)
    async with running(server):
        connection = await asyncpg.connect(server.url())
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        await connection.execute("ALTER ROLE pezzottify PASSWORD NULL")
        await connection.close()
    trusting = "host all all 127.0.0.1/32 trust\n"
    (closed / "postgres/data/pg_hba.conf").write_text(trusting)
    (closed / "postgres/password").unlink()
    if os.getuid() == 0:
        shutil.chown(closed / "postgres", owner)
    again = Postgres(closed / "postgres", fsync=False)
    async with running(again):
        connection = await asyncpg.connect(again.url())
        assert await connection.fetchval("SELECT number FROM kept") == 7
        await connection.close()
        assert await refused(f"postgresql://pezzottify@127.0.0.1:{again.port}/pezzottify")


async def test_a_failure_is_one_line(closed: Path) -> None:
    """F6: what went wrong, and which log has the rest."""
    server = Postgres(closed / "postgres", fsync=False)
    async with running(server):
        pass
    (closed / "postgres/data/PG_VERSION").write_text("11\n")
    with pytest.raises(ServerFailed) as caught:
        await server.start()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "incompatible" in text or "version" in text, text
    assert str(closed / "postgres/server.log") in text


@only_root
async def test_another_users_state_is_left_alone(closed: Path) -> None:
    """Root on a user's `data`: one line that says who is to run it, and it stays the user's."""
    server = Postgres(closed / "postgres", fsync=False)
    (closed / "postgres").mkdir()
    shutil.chown(closed / "postgres", "games")
    with pytest.raises(ServerFailed, match="is another user's: run as that one"):
        await server.start()
    assert (closed / "postgres").owner() == "games"
