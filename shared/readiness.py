"""What a service needs before it is of any use, looked at from its start on.

A catalog or a folder that a setting names and that is not there would otherwise show with the first
request. Once it was there, its absence is an outage: work waits, and the service stays ready, for
it can still answer and take requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from shared.app import App, Duty
from shared.errors import AttemptFailed, Dependency, Unavailable
from shared.runtime import first_of

log = structlog.get_logger()

_LOOK_S = 10.0

Look = Callable[[], Awaitable[None]]


class FirstLook:
    """A duty that looks for a dependency until it was there once."""

    def __init__(self, app: App, dependency: Dependency, look: Look) -> None:
        self.name = f"first look at {dependency}"
        self._app = app
        self._dependency = dependency
        self._look = look

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set() and not await self._is_there():
            await first_of(stop, timeout_s=self._app.settings.sweep_interval_s)
        await stop.wait()

    async def _is_there(self) -> bool:
        health = self._app.health
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._look()
        except Unavailable as held:
            health.failed(held)
        except AttemptFailed as failed:
            health.down(self._dependency, failed.message)
        except TimeoutError:
            health.down(self._dependency, f"no answer within {_LOOK_S:g} s")
        except Exception as error:
            # A bug must not end the service; it is looked at again.
            log.exception("first_look_failed", dependency=self._dependency)
            health.down(self._dependency, repr(error))
        else:
            health.up(self._dependency)
            self._app.awaited.discard(self._dependency)
            return True
        return False


def first_looks(app: App, looks: Mapping[Dependency, Look]) -> list[Duty]:
    """A duty for each that no other service of this process looks for; until then `awaited`."""
    new = [name for name in looks if name not in app.awaited]
    app.awaited.update(new)
    return [FirstLook(app, name, looks[name]) for name in new]
