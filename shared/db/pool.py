"""The pool of PostgreSQL connections, and the translation of its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import asyncpg
import structlog

from shared.db.server import (
    APPLICATION,
    LIMITS,
    WHICH,
    Server,
    Which,
    limits_sql,
    probe,
)
from shared.errors import Conflict, DependencyDown, Misconfigured, StatementAborted

if TYPE_CHECKING:
    Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
    Row: TypeAlias = asyncpg.Record
else:
    Connection = Row = object

log = structlog.get_logger()

# The errors while PostgreSQL is unavailable, starting, stopping or full.
_DOWN = (
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # Not migrated yet: `pezzottify-downloads migrate` may still be running.
    asyncpg.UndefinedTableError,
    # A primary that has just become a replica.
    asyncpg.ReadOnlySQLTransactionError,
    # A pooler that was not there when the pool was opened: it is opened again.
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)

# One statement was ended, or one transaction; the server works.
_ABORTED = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)

# For the rest of a transaction, before the first few of many rows are taken: a backlog that has
# grown since PostgreSQL last counted looks short to it, and it would sort all of it each time.
IN_INDEX_ORDER = "SET LOCAL enable_sort = off"
IN_ANY_ORDER = "SET LOCAL enable_sort = on"

CONNECT_TIMEOUT_S = 10
# Longer than the server's own limit of a statement, so that a statement which takes too long ends
# as such, and a server that does not answer as an outage.
COMMAND_TIMEOUT_S = 30
_RELEASE_TIMEOUT_S = 2
# As PgBouncer says it.
_STATEMENT_POOLING = "statement pooling mode"
_REFUSED = (
    "DATABASE_URL leads to a pooler without transactions ({}): set its pool_mode to"
    " transaction or session, or let DATABASE_URL lead to PostgreSQL"
)
# Of a statement, in logs: its beginning tells which it is.
_LONGEST_SHOWN = 120


@contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's errors of reachability into `DependencyDown`, and what ends one statement into
    `StatementAborted`; let bugs through.

    A right that the login lacks is no bug either: `migrate` may still be running, or has to run.
    """
    try:
        yield
    except _ABORTED as error:
        statement = " ".join(str(getattr(error, "query", None) or "").split())
        raise StatementAborted(str(error), statement=statement[:_LONGEST_SHOWN]) from error
    except asyncpg.InsufficientPrivilegeError as error:
        detail = f"{error}; pezzottify-downloads migrate gives the rights"
        raise DependencyDown("postgres", detail) from error
    except _DOWN as error:
        # An argument that does not fit its column is an InterfaceError, too, and a bug.
        if isinstance(error, ValueError):
            raise
        detail = str(error) or type(error).__name__
        raise DependencyDown("postgres", detail) from error


@contextmanager
def taken(detail: str) -> Iterator[None]:
    """Turn the refusal of a unique index into `Conflict`: another transaction was faster."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise Conflict(detail) from error


class Database:
    """A pool that connects when it is first needed, and again whenever it has to.

    Behind a pooler, which may give every transaction another session, each use is a transaction
    that begins with its limits, and no statement is kept prepared.
    """

    def __init__(self, url: str, *, max_size: int = 10) -> None:
        self._url = url
        self.max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        # What the last new connection reached.
        self.server: Server | None = None

    async def check_server(self) -> Server:
        """Find out by a new connection what the address leads to now.

        Connections to another server, or to one that has become another (a restored copy behind
        the same address, a promoted replica), are closed when they are free.

        Raises:
            DependencyDown: PostgreSQL is away.
            Misconfigured: a pooler is in between that cannot be used.
        """
        with translated():
            try:
                server = await probe(self._url, timeout_s=CONNECT_TIMEOUT_S)
            except asyncpg.PostgresConnectionError as refused:
                if _STATEMENT_POOLING not in str(refused):
                    raise
                raise Misconfigured("postgres", _REFUSED.format(refused)) from refused
        before, self.server = self.server, server
        if before != server and server.not_durable:
            log.warning("postgres_not_durable", settings=server.not_durable)
        if before is not None:
            await self._noted(before.which, server.which)
            if before.pooled != server.pooled:
                await self.close()
        return server

    async def _noted(self, before: Which, now: Which) -> None:
        if before == now or self._pool is None:
            return
        log.warning("postgres_replaced", started_at=str(now.started_at), is_replica=now.is_replica)
        await self._pool.expire_connections()

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._opening.acquire()
        try:
            if self._pool is None:
                server = await self.check_server()
                how: dict[str, Any] = {"server_settings": APPLICATION | LIMITS}
                if server.pooled:
                    # A reset would be another client's: the limits end with the transaction.
                    how = {"server_settings": APPLICATION, "statement_cache_size": 0}
                    how["reset"] = _no_reset
                    log.info("postgres_behind_a_pooler")
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self.max_size,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=COMMAND_TIMEOUT_S,
                    max_inactive_connection_lifetime=60,
                    init=self._prepare,
                    **how,
                )
            return self._pool
        finally:
            self._opening.release()

    async def _prepare(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Prepare a new connection, and note which server it reached."""
        async with connection.transaction():
            await connection.set_type_codec(
                "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
            )
            row = await connection.fetchrow(WHICH)
        assert row is not None, "a select of functions has a row"
        assert self.server is not None, "the pool was opened after a look at the server"
        which, before = Which(**row), self.server.which
        self.server = replace(self.server, which=which)
        await self._noted(before, which)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        pool = self._pool or await self._open()
        try:
            connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                # A server that does not answer would not answer a close either, and the stop waits.
                with suppress(asyncpg.InterfaceError):  # it has ended by itself
                    connection.terminate()
                raise
            finally:
                await pool.release(connection, timeout=_RELEASE_TIMEOUT_S)
        except _DOWN:
            # Every connection may lead to a server that is gone or has another role: a session
            # keeps what its server was when it connected, and a new one may reach the primary.
            await pool.expire_connections()
            raise

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for single statements, each committed by itself, or behind a pooler all
        together at a normal exit.

        Raises:
            DependencyDown: PostgreSQL is away.
            StatementAborted: a statement ran into its timeout, or another one's lock.
        """
        with translated():
            async with self._acquired() as connection:
                if self.server is None or not self.server.pooled:
                    yield connection
                else:
                    async with _begun(connection, pooled=True):
                        yield connection

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """A connection inside a READ COMMITTED transaction, committed on a normal exit.

        `snapshot`: one that only reads, all of it as of one moment.

        Raises:
            DependencyDown, StatementAborted: as `connection`. It may have been committed all the
                same, should the connection have ended at that very moment.
        """
        with translated():
            async with self._acquired() as connection:
                pooled = self.server is not None and self.server.pooled
                async with _begun(connection, pooled=pooled, snapshot=snapshot):
                    yield connection

    async def close(self) -> None:
        """Close every connection; a later use opens new ones."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except (TimeoutError, *_DOWN):
            pool.terminate()


@asynccontextmanager
async def _begun(
    connection: Connection, *, pooled: bool, snapshot: bool = False
) -> AsyncIterator[None]:
    """A transaction, with its limits where the session does not have them."""
    isolation: Literal["repeatable_read", "read_committed"]
    isolation = "repeatable_read" if snapshot else "read_committed"
    transaction = connection.transaction(isolation=isolation, readonly=snapshot)
    await transaction.start()
    try:
        if pooled:
            await connection.execute(limits_sql())
        yield
    except (asyncio.CancelledError, TimeoutError):
        raise  # The connection is ended, and with it the transaction.
    except BaseException:
        await transaction.rollback()
        raise
    await transaction.commit()


async def _no_reset(_: object) -> None:
    """Leave the session as it is."""
