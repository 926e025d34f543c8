"""Which installation this is: made with the schema, and kept by a restored backup."""

from __future__ import annotations

from shared.db.pool import Connection

_READ = "SELECT id FROM identity"


async def installation_id(connection: Connection) -> str:
    """A short name, unlike any other installation's; twelve hexadecimal digits."""
    found: str | None = await connection.fetchval(_READ)
    assert found is not None, "the migration makes it"
    return found
