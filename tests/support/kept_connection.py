"""The connection over which a test asks its database, made once instead of for each question."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import asyncpg

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# How a connection fails that PostgreSQL ended, or that was cut, since it was last used.
_LOST = (
    ConnectionError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)


class KeptConnection:
    """Made when it is first used. While it is in use, another question gets one of its own.

    With `parses_json` jsonb is what `json` makes of it, else text.
    """

    def __init__(self, *, parses_json: bool = False) -> None:
        self._parses_json = parses_json
        self._kept: Connection | None = None

    async def run(self, url: str, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """What `ask` returns; asked again, over a new connection, if the kept one is lost."""
        kept, self._kept = self._kept, None
        if kept is not None and not kept.is_closed():
            try:
                return await self._answer(kept, ask)
            except _LOST:
                pass  # of before a restart of the server
        return await self._answer(await self._connect(url), ask)

    async def _answer(self, connection: Connection, ask: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            answer = await ask(connection)
        except BaseException:
            connection.terminate()
            raise
        if self._kept is None:
            self._kept = connection
        else:
            await connection.close()
        return answer

    async def _connect(self, url: str) -> Connection:
        # A plan that is kept would not outlive a migration.
        connection = await asyncpg.connect(url, statement_cache_size=0)
        if self._parses_json:
            await connection.set_type_codec(
                "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
            )
        return connection

    def drop(self) -> None:
        """End the connection, if there is one."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.terminate()
