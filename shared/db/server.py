"""What the address of PostgreSQL leads to: which server, whether through a pooler, how durable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg

# In force in every session, or, behind a pooler, in every transaction.
LIMITS = {
    "statement_timeout": "25000",
    "lock_timeout": "15000",
    # A worker that stops inside a transaction must not hold its rows for ever.
    "idle_in_transaction_session_timeout": "60000",
    # A client that has gone while its statement waits for a lock releases its own locks.
    "client_connection_check_interval": "5000",
    "timezone": "UTC",
}
APPLICATION = {"application_name": "pezzottify-downloads"}

# The time of the start tells one server from another, without a right that a role may lack.
WHICH = """
SELECT pg_postmaster_start_time() AS started_at, pg_is_in_recovery() AS is_replica
"""

# The settings with which a crash of the server loses the last commits, or the database.
NOT_DURABLE = """
ARRAY(SELECT name || ' = ' || setting FROM pg_settings
       WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'off' ORDER BY name)
"""

_ABOUT = f"""
SELECT pg_postmaster_start_time() AS started_at, pg_is_in_recovery() AS is_replica,
       pg_backend_pid() AS pid, {NOT_DURABLE} AS not_durable
"""


@dataclass(frozen=True, kw_only=True)
class Which:
    """One server in one role: a restart, a restored cluster or a promotion makes another."""

    started_at: datetime
    is_replica: bool


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a new connection reaches.

    `pooled`: a pooler such as PgBouncer is in between, so that consecutive transactions may run in
    different sessions. `not_durable`: the settings that let a crash lose commits.
    """

    which: Which
    pooled: bool
    not_durable: tuple[str, ...]


def limits_sql() -> str:
    """The statements that put the limits in force for the rest of a transaction."""
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in LIMITS.items())


async def probe(url: str, *, timeout_s: float) -> Server:
    """Connect once and find out; asyncpg's errors pass through."""
    refused = False
    try:
        connection = await _connect(url, APPLICATION | LIMITS, timeout_s)
    except asyncpg.ProtocolViolationError:
        # PgBouncer refuses startup parameters that it does not know.
        refused = True
        connection = await _connect(url, APPLICATION, timeout_s)
    try:
        async with connection.transaction():
            row = await connection.fetchrow(_ABOUT)
        told_pid = connection.get_server_pid()
    finally:
        connection.terminate()
    assert row is not None, "a select of functions has a row"
    return Server(
        which=Which(started_at=row["started_at"], is_replica=row["is_replica"]),
        # A pooler tells a process id of its own.
        pooled=refused or row["pid"] != told_pid,
        not_durable=tuple(row["not_durable"]),
    )


async def _connect(
    url: str, settings: dict[str, str], timeout_s: float
) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(
        url,
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings=settings,
        statement_cache_size=0,
    )
