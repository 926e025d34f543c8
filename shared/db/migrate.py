"""Forward-only migrations, by Alembic, safe when two start at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.db.logins import give_logins
from shared.db.pool import translated
from shared.db.roles import give_rights
from shared.errors import DependencyDown, Misconfigured
from shared.settings import Service

_HERE = Path(__file__).parent / "migrations"
# Any number that no other program uses for an advisory lock on this server.
_LOCK = 7_305_809_111
# The errors of a connect. A server that is being set up has no database yet, and no role.
_NOT_CONNECTED = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def _config() -> Config:
    config = Config()
    # A percent sign means something to the parser behind it.
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The newest revision in this code."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, "there is at least one migration"
    return revision


def run_sql_file(name: str) -> None:
    """For a migration: run a file of statements inside its transaction."""
    sql = (_HERE / "versions" / name).read_text(encoding="utf-8")
    dbapi = op.get_bind().connection.dbapi_connection
    assert dbapi is not None
    # asyncpg's own execute() takes many statements; SQLAlchemy's prepares, and takes one.
    dbapi.run_async(lambda connection: connection.execute(sql))


def _upgrade(connection: Connection) -> None:
    # A second migration waits here, and then has nothing to do.
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate the errors of SQLAlchemy and Alembic that are not bugs."""
    try:
        yield
    except DBAPIError as error:
        # Two adapters have wrapped the error of asyncpg.
        cause = getattr(error.orig, "__cause__", None) or error.orig
        if error.connection_invalidated or isinstance(cause, _NOT_CONNECTED):
            raise DependencyDown("postgres", str(cause)) from error
        if isinstance(cause, asyncpg.InsufficientPrivilegeError):
            raise _not_the_owner(cause) from error
        raise
    except asyncpg.InsufficientPrivilegeError as error:
        raise _not_the_owner(error) from error
    except CommandError as error:
        raise Misconfigured("postgres", f"the schema is newer than this code: {error}") from error


def _not_the_owner(error: Exception) -> Misconfigured:
    return Misconfigured("postgres", f"{error}; the owner of the schema migrates")


async def migrate(database_url: str, logins: Mapping[Service, str] | None = None) -> str:
    """Bring the database to `head()` and the services' rights up to date; return that revision.

    With `logins`, each service may then log in with the user and password of its URL there.

    Raises:
        DependencyDown: PostgreSQL cannot be reached.
        Misconfigured: a right is missing, or the schema is newer than this code.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(database_url, timeout=10),
        poolclass=NullPool,
    )
    try:
        with translated(), _refusals():
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade)
                driver = (await connection.get_raw_connection()).driver_connection
                assert isinstance(driver, asyncpg.Connection)
                # In the transaction of the migration: no service sees a table without its rights.
                await give_rights(driver)
                if logins:
                    await give_logins(driver, logins)
    finally:
        await engine.dispose()
    return await asyncio.to_thread(head)
