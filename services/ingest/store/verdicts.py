"""What files in place were found to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.db.pool import Connection, Row

# A file that took too long to check may take less when the machine has less to do.
_TIMEOUT_FOR = "1 hour"

_READ = f"""
SELECT facts, error_type, message FROM file_verdicts
 WHERE path_key = $1 AND expected_ms = $2 AND tolerance_s = $3 AND size_bytes = $4
   AND modified_ns = $5
   AND (error_type IS DISTINCT FROM 'timeout' OR checked_at > now() - interval '{_TIMEOUT_FOR}')
"""  # noqa: S608 (made of constants)

_WRITE = """
INSERT INTO file_verdicts (path_key, expected_ms, tolerance_s, size_bytes, modified_ns, facts,
                           error_type, message)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (path_key, expected_ms) DO UPDATE
   SET tolerance_s = excluded.tolerance_s, size_bytes = excluded.size_bytes,
       modified_ns = excluded.modified_ns, facts = excluded.facts,
       error_type = excluded.error_type, message = excluded.message, checked_at = now()
"""


@dataclass(frozen=True, kw_only=True)
class FileState:
    """A file as it was when it was checked, and what it was checked for."""

    path_key: str
    expected_ms: int
    tolerance_s: float
    size_bytes: int
    modified_ns: int


async def read(connection: Connection, file: FileState) -> Row | None:
    """The verdict of exactly this file: `facts`, or `error_type` and `message`."""
    return await connection.fetchrow(
        _READ,
        file.path_key,
        file.expected_ms,
        file.tolerance_s,
        file.size_bytes,
        file.modified_ns,
    )


async def write(
    connection: Connection,
    file: FileState,
    *,
    facts: Mapping[str, Any] | None = None,
    error_type: str | None = None,
    message: str | None = None,
) -> None:
    """Keep the verdict, in place of the file's former one."""
    await connection.execute(
        _WRITE,
        file.path_key,
        file.expected_ms,
        file.tolerance_s,
        file.size_bytes,
        file.modified_ns,
        facts,
        error_type,
        None if message is None else message.replace("\0", "\\0"),
    )
