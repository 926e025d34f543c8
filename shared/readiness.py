"""What a service needs before it is ready, checked from its start on.

Without this check a catalog or a folder that a setting names, and that does not exist, would show
with the first request only. Once a dependency was there, its absence is an outage: work waits, and
the service stays ready, for it can still answer and take requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from shared.app import App
from shared.duty import Duty
from shared.errors import AttemptFailed, Dependency, Unavailable
from shared.stop import run_until

log = structlog.get_logger()

_CHECK_S = 10.0

Check = Callable[[], Awaitable[None]]


class FirstCheck:
    """A duty that checks a dependency until it was there once."""

    def __init__(self, app: App, dependency: Dependency, check: Check) -> None:
        self.name = f"first check of {dependency}"
        self._app = app
        self._dependency = dependency
        self._check = check

    async def run(self, stop: asyncio.Event) -> None:
        await run_until(stop, self._turn)
        await stop.wait()

    async def _turn(self, _stop: asyncio.Event) -> float | None:
        return None if await self._is_there() else self._app.settings.sweep_interval_s

    async def _is_there(self) -> bool:
        health = self._app.health
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._check()
        except Unavailable as unavailable:
            health.failed(unavailable)
        except AttemptFailed as failed:
            health.down(self._dependency, failed.message)
        except TimeoutError:
            health.down(self._dependency, f"no answer within {_CHECK_S:g} s")
        except Exception as error:
            # A bug must not end the service; the check is repeated.
            log.exception("first_check_failed", dependency=self._dependency)
            health.down(self._dependency, repr(error))
        else:
            health.up(self._dependency)
            self._app.awaited.discard(self._dependency)
            return True
        return False


def first_checks(app: App, checks: Mapping[Dependency, Check]) -> list[Duty]:
    """A duty for each that no other service of this process checks; until then `awaited`."""
    new = [name for name in checks if name not in app.awaited]
    app.awaited.update(new)
    return [FirstCheck(app, name, checks[name]) for name in new]
