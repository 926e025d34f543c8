"""The roles of the services in PostgreSQL: one each, with the rights of `rights.py`.

`migrate` gives the rights after every migration. A service has them through a login that is a
member of its role (`logins.py`). With one login for all services, that of the schema's owner, the
roles have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TypeAlias

import asyncpg

from shared.db.rights import DEFINER_FUNCTIONS, Right, rights
from shared.settings import EVERY_SERVICE, Service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_COLUMNS = """
SELECT c.relname, array_remove(array_agg(a.attname::text), NULL) AS columns
  FROM pg_class c
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'S')
 GROUP BY c.relname
"""

_GIVEN = """
WITH acls AS (
    SELECT c.relname, NULL::name AS column, c.relacl AS acl FROM pg_class c
     WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'S')
    UNION ALL
    SELECT c.relname, a.attname, a.attacl
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
     WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
)
SELECT r.rolname, acls.relname, acls.column, e.privilege_type
  FROM acls, aclexplode(acls.acl) e JOIN pg_roles r ON r.oid = e.grantee
 WHERE r.rolname = ANY($1)
"""

_ROLES = "SELECT rolname FROM pg_roles WHERE rolname = ANY($1)"

_MAY_MAKE_ROLES = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"

# Another database of this server may be migrated at the same moment.
_MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

# The path is fixed: a caller must not put a table of its own in front of the schema's. PUBLIC must
# not make a trigger with it on a table of its own.
_DEFINER = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION {function}() SECURITY DEFINER'
                   ' SET search_path = pg_catalog, %I, pg_temp', current_schema());
    REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC;
END $$
"""


def role_of(service: Service) -> str:
    """The name of a service's role, which cannot log in itself."""
    return f"pezzottify_{service}"


async def give_rights(connection: Connection) -> None:
    """Make the roles where that is allowed, and give those that exist exactly their rights.

    For the schema's owner, inside a transaction. It writes nothing that is right already.
    """
    for function in DEFINER_FUNCTIONS:
        await connection.execute(_DEFINER.format(function=function))
    roles = await _made_roles(connection)
    if not roles:
        return
    schema = await connection.fetchval("SELECT quote_ident(current_schema())")
    names = ", ".join(role_of(service) for service in roles)
    await connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {names}")
    columns = {row["relname"]: row["columns"] for row in await connection.fetch(_COLUMNS)}
    wanted = {right for right in rights(columns) if right.service in roles}
    given = await given_rights(connection)
    for statement in (
        *_statements("REVOKE", given - wanted),
        *_statements("GRANT", wanted - given),
    ):
        await connection.execute(statement)


async def given_rights(connection: Connection) -> set[Right]:
    """The rights that the roles have in the current schema."""
    services = {role_of(service): service for service in EVERY_SERVICE}
    rows = await connection.fetch(_GIVEN, list(services))
    return {
        Right(services[row["rolname"]], row["relname"], row["column"], row["privilege_type"])
        for row in rows
    }


async def _made_roles(connection: Connection) -> set[Service]:
    """The services whose role exists; missing ones are made first, where that is allowed."""
    services = {role_of(service): service for service in EVERY_SERVICE}
    found = {row["rolname"] for row in await connection.fetch(_ROLES, list(services))}
    if found != services.keys() and await connection.fetchval(_MAY_MAKE_ROLES):
        for role in services.keys() - found:
            await connection.execute(_MAKE_ROLE.format(role=role))
        found = set(services)
    return {services[role] for role in found}


def _statements(verb: str, changed: Iterable[Right]) -> Iterator[str]:
    """GRANT or REVOKE, one statement for each role and relation."""

    def whole(right: Right) -> tuple[Service, str]:
        return right.service, right.relation

    target = "TO" if verb == "GRANT" else "FROM"
    ordered = sorted(changed, key=lambda right: (right[:2], right.privilege, right.column or ""))
    for (service, relation), parts in groupby(ordered, key=whole):
        privileges = [
            right.privilege + (f' ("{right.column}")' if right.column else "") for right in parts
        ]
        kind = "SEQUENCE" if privileges == ["USAGE"] else "TABLE"
        yield (f'{verb} {", ".join(privileges)} ON {kind} "{relation}" {target} {role_of(service)}')
