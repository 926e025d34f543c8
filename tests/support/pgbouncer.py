"""A real PgBouncer before the tests' PostgreSQL. Without it its tests skip, except in CI."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from services.local.servers import NOBODY, free_port
from tests.support.programs import debian_program
from tests.support.waits import eventually

PoolMode = Literal["session", "transaction", "statement"]

# As an administrator sets it who has read what PgBouncer says of a refused connection.
IGNORED = (
    "statement_timeout,lock_timeout,idle_in_transaction_session_timeout,"
    "client_connection_check_interval"
)


@asynccontextmanager
async def pgbouncer(
    url: str, folder: Path, mode: PoolMode, *, ignores: str = "", sessions: int = 3
) -> AsyncIterator[str]:
    """The URL through a PgBouncer that shares so many sessions of the database at `url`."""
    binary = debian_program("pgbouncer", package="pgbouncer")
    parts, port = urlsplit(url), free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n"
        f"* = host=127.0.0.1 port={parts.port} user={parts.username} password={parts.password}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        f"pool_mode = {mode}\ndefault_pool_size = {sessions}\n"
        f"ignore_startup_parameters = {ignores}\n"
    )
    config.chmod(0o644)
    process = await asyncio.to_thread(
        subprocess.Popen,
        [binary, "-q", str(config)],
        user=NOBODY if os.geteuid() == 0 else None,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        await eventually(lambda: _listens(port))
        yield f"postgresql://{parts.username}:x@127.0.0.1:{port}{parts.path}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
