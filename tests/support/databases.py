"""Databases for tests: copies of one that is migrated already."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg

from services.local.postgres import Postgres
from shared.db.migrate import migrate
from shared.settings import EVERY_SERVICE, Service

_TEMPLATE = "template"
# The servers, by host and port, on which each service has a login of its own.
_with_logins: set[str] = set()


async def start(server: Postgres) -> None:
    """Start the server for tests, and migrate the database that is copied for each of them."""
    await server.start()
    connection = await asyncpg.connect(server.url("postgres"))
    try:
        # For a crash of the machine, and for databases that live long: a fifth of its work.
        for name in ("full_page_writes", "autovacuum"):
            await connection.execute(f"ALTER SYSTEM SET {name} = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    await server.create_database(_TEMPLATE)
    url = server.url(_TEMPLATE)
    await migrate(url, {service: _as(service, url) for service in EVERY_SERVICE})
    _with_logins.add(_server_of(url))


async def new_database(server: Postgres, name: str) -> str:
    """Make a migrated database; its URL."""
    return await _copy(server, _TEMPLATE, name)


async def copy_of(server: Postgres, url: str, name: str) -> str:
    """A copy of a database as it is now, as one that was restored; its URL.

    Connections to the original are ended: PostgreSQL copies only what has none.
    """
    original = url.rpartition("/")[2]
    connection = await asyncpg.connect(server.url("postgres"))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", original
        )
    finally:
        await connection.close()
    return await _copy(server, original, name)


async def _copy(server: Postgres, template: str, name: str) -> str:
    connection = await asyncpg.connect(server.url("postgres"))
    try:
        # Half the work of the default, where the disk is not waited for.
        await connection.execute(
            f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'
        )
    finally:
        await connection.close()
    return server.url(name)


def url_of(service: Service, url: str) -> str:
    """The URL of a database for a service: with its login, if the server has one for it."""
    return _as(service, url) if _server_of(url) in _with_logins else url


def _as(service: Service, url: str) -> str:
    return url.replace(urlsplit(url).netloc, f"login_{service}:of%20{service}@{_server_of(url)}")


def _server_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
