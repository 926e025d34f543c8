"""What fails for one download alone, while its remote works for all others."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection

import structlog

from shared.backoff import Backoff
from shared.db.pool import Database
from shared.errors import Dependency, Unavailable
from shared.states import POLLED_DOWNLOADS, in_sql

log = structlog.get_logger()

# In a row; what is withdrawn is let go then.
MOST_FAILURES = 10
_FIRST_S = 5.0
_LONGEST_S = 600.0
# What has not failed for so long is forgotten.
_MOST_REMEMBERED = 1000

_PUT_OFF = f"""
UPDATE tickets SET next_poll_at = now() + make_interval(secs => $2)
 WHERE id = ANY($1) AND state IN ({in_sql(POLLED_DOWNLOADS)})
"""  # noqa: S608 (made of constants)

# It says so where its items show what they wait for.
_FAILED = f"""
UPDATE tickets
   SET failures = failures + 1, remote_reason = $2,
       next_poll_at = now() + make_interval(secs => $3)
 WHERE id = $1 AND state IN ({in_sql(POLLED_DOWNLOADS)})
"""  # noqa: S608 (made of constants)


async def put_off(database: Database, ids: Collection[str], *, delay_s: float) -> None:
    """Make these downloads due later; nothing is known about them."""
    async with database.connection() as connection:
        await connection.execute(_PUT_OFF, list(ids), delay_s)


async def record_failure(
    database: Database, download_id: str, *, earlier: int, first_s: float, reason: str
) -> None:
    """A download alone could not be read or acted on: it waits for longer each time in a row."""
    wait_s = _pause_s(earlier + 1, first_s=first_s)
    log.warning(
        "download_at_fault",
        ticket=download_id,
        in_a_row=earlier + 1,
        wait_s=wait_s,
        detail=reason,
    )
    async with database.connection() as connection:
        await connection.execute(_FAILED, download_id, reason[:2000], wait_s)


def _pause_s(failures: int, *, first_s: float) -> float:
    """Seconds until what has failed so often in a row is tried again; the first pause doubles."""
    return Backoff(first_s=first_s, longest_s=max(_LONGEST_S, first_s)).grown_s(failures)


class Pauses:
    """Which removals of this process failed alone, and when each is tried again."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    async def alone(
        self,
        key: str,
        act: Callable[[], Awaitable[bool]],
        *,
        works: Callable[[Dependency], Awaitable[bool]],
    ) -> bool:
        """Whether `act` is done; what fails for this alone waits, and stops nothing else.

        Raises:
            Unavailable: by what `works` tells, it fails for all.
        """
        if self._now() < self._until.get(key, 0.0):
            return False
        try:
            done = await act()
        except Unavailable as away:
            if not await works(away.dependency):
                raise
            self._pause(key, str(away))
            return False
        self._failures.pop(key, None)
        self._until.pop(key, None)
        return done

    def _pause(self, key: str, detail: str) -> None:
        if len(self._failures) >= _MOST_REMEMBERED:
            self._failures.clear()
            self._until.clear()
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._until[key] = self._now() + _pause_s(failures - 1, first_s=_FIRST_S)
        log.warning("removal_failed", what=key, in_a_row=failures, detail=detail)
