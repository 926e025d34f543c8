"""The pool of PostgreSQL connections, and the translation of its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from shared.errors import Conflict, DependencyDown

if TYPE_CHECKING:
    Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
    Row: TypeAlias = asyncpg.Record
else:
    Connection = Row = object

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
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # A primary that has just become a replica.
    asyncpg.ReadOnlySQLTransactionError,
)

# For the rest of a transaction, before the first few of many rows are taken: a backlog that has
# grown since PostgreSQL last counted looks short to it, and it would sort all of it each time.
IN_INDEX_ORDER = "SET LOCAL enable_sort = off"
IN_ANY_ORDER = "SET LOCAL enable_sort = on"

CONNECT_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 30
_RELEASE_TIMEOUT_S = 2
_SERVER_SETTINGS = {
    "application_name": "pezzottify-downloads",
    "statement_timeout": "30000",
    "lock_timeout": "15000",
    # A worker that stops inside a transaction must not hold its rows for ever.
    "idle_in_transaction_session_timeout": "60000",
    # A client that has gone while its statement waits for a lock releases its own locks.
    "client_connection_check_interval": "5000",
    "timezone": "UTC",
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's errors of reachability into `DependencyDown`; let bugs through.

    A right that the login lacks is no bug either: `migrate` may still be running, or has to run.
    """
    try:
        yield
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


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


class Database:
    """A pool that connects when it is first needed, and again whenever it has to."""

    def __init__(self, url: str, *, max_size: int = 10) -> None:
        self._url = url
        self.max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                # min_size=0 opens nothing now, so a service starts before PostgreSQL is up.
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self.max_size,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=COMMAND_TIMEOUT_S,
                    max_inactive_connection_lifetime=60,
                    server_settings=_SERVER_SETTINGS,
                    init=_prepare,
                )
            return self._pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside a transaction, for single statements.

        Raises:
            DependencyDown: PostgreSQL is away, or a statement ran into its timeout.
        """
        with translated():
            pool = self._pool or await self._open()
            connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                # A server that does not answer would not answer a close either, and the stop waits.
                with suppress(asyncpg.InterfaceError):  # it has ended by itself
                    connection.terminate()
                raise
            except asyncpg.ReadOnlySQLTransactionError:
                # The session keeps what its server was when it connected: a new one may reach the
                # primary, or a server that is one by now.
                await pool.expire_connections()
                raise
            finally:
                await pool.release(connection, timeout=_RELEASE_TIMEOUT_S)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a READ COMMITTED transaction, committed on a normal exit.

        Raises:
            DependencyDown: as `connection`. It may have been committed all the same, should the
                connection have ended at that very moment.
        """
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                raise  # The connection is ended, and with it the transaction.
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()

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
