"""The logins of the services in PostgreSQL: a user for each, who has the rights of its role."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from shared.db.roles import Connection, role_of
from shared.errors import Misconfigured
from shared.setting_types import DatabaseUrl
from shared.settings import EVERY_SERVICE, Service, Settings, SettingsError

_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = $1"
_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = $1"

# PostgreSQL's default; version 15 has no setting for it.
_ITERATIONS = 4096


def database_urls(folder: Path) -> dict[Service, str]:
    """The DATABASE_URL of each service, from the files `database_url_<service>` of a folder.

    Raises:
        SettingsError: with one line per file that is missing or has no PostgreSQL URL.
    """
    urls: dict[Service, str] = {}
    at_fault = []
    for service in EVERY_SERVICE:
        path = folder / f"database_url_{service}"
        try:
            url = TypeAdapter(DatabaseUrl).validate_python(path.read_text(encoding="utf-8").strip())
        except (OSError, ValueError):
            wants = Settings.model_fields["database_url"].description
            at_fault.append(f"{path}: wants a readable file with {wants}")
        else:
            urls[service] = url.get_secret_value()
    if at_fault:
        raise SettingsError("\n".join(at_fault))
    return urls


async def give_logins(connection: Connection, urls: Mapping[Service, str]) -> None:
    """Let each service log in with the user and the password of its URL.

    Raises:
        Misconfigured: a URL names no user or no password, or a user that is a superuser; or the
            roles cannot be made.
    """
    iterations = await connection.fetchval("SELECT current_setting('scram_iterations', true)::int")
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    for service, url in urls.items():
        name, password = _login(service, url)
        if await connection.fetchval(_IS_SUPERUSER, name):
            raise Misconfigured(
                "postgres",
                f"the URL of {service} has the superuser {name}: give it a user of its own",
            )
        login = await connection.fetchval("SELECT quote_ident($1)", name)
        if not await connection.fetch(_EXISTS, name):
            await connection.execute(f"CREATE ROLE {login}")
        verifier = scram_verifier(password, iterations=iterations or _ITERATIONS)
        await connection.execute(f"ALTER ROLE {login} LOGIN PASSWORD '{verifier}'")
        await connection.execute(f"GRANT {role_of(service)} TO {login}")
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {login}")


def scram_verifier(password: str, *, iterations: int) -> str:
    """What PostgreSQL stores of a password, so that the password itself is in no statement or log.

    The password is plain ASCII: SASLprep leaves it as it is.
    """
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    keys = [hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key")]
    stored, server = hashlib.sha256(keys[0]).digest(), keys[1]
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def _login(service: Service, url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not (name and password and password.isascii() and password.isprintable()):
        raise Misconfigured(
            "postgres", f"the URL of {service} wants a user, and a password of printable ASCII"
        )
    return name, password
