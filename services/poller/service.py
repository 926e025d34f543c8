"""The poller: follows downloads until their remote has ended each of them.

Polling is the truth; a hint of the remote only makes a download due sooner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Generic

import structlog

from services.poller.follower import Follower, RowT, SeenT
from shared.app import App
from shared.bus.subjects import Wake
from shared.duty import PeriodicDuty
from shared.errors import Unavailable

log = structlog.get_logger()

# Downloads of one run.
_MOST = 500


class Poller(Generic[RowT, SeenT]):
    """Follows the downloads of one mode: claim what is due, read it, act on each."""

    def __init__(self, app: App, follower: Follower[RowT, SeenT]) -> None:
        settings = app.settings
        self.name = follower.name
        self.follower = follower
        # A beat finer than the interval, so that no download waits for nearly two of them.
        beat_s = min(settings.poll_interval_s / 2, settings.sweep_interval_s)
        self.loop = PeriodicDuty.of(
            app, self.name, self.run_once, interval_s=beat_s, needs=follower.needs
        )
        self._announcer = app.announcer
        self._health = app.health
        self._torrentino = app.health.breaker("torrentino")
        self._poll_interval_s = settings.poll_interval_s

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until the stop."""
        await self.loop.run(stop)

    async def run_once(self) -> int:
        """Act on every download that is due; returns how many, while Torrentino recovers.

        Otherwise 0: what is due again at once is for the next beat.

        Raises:
            Unavailable: a remote or PostgreSQL is away; the downloads stay as they were.
        """
        await self.follower.prepare()
        recovering = not self._torrentino.closed
        due = await self.follower.claim(self._torrentino.allowance(_MOST))
        if not due:
            return 0
        # What failed before may take its time: the others come first.
        for rows in ([r for r in due if not r.failures], [r for r in due if r.failures]):
            if rows:
                await self._follow(rows)
        return len(due) if recovering else 0

    async def _follow(self, rows: Sequence[RowT]) -> None:
        seen = await self._read(rows)
        self._health.up("torrentino")
        woken: set[Wake] = set()
        try:
            await self._act_on_all(rows, seen, woken)
        finally:
            await self._announcer.announce(*sorted(woken))

    async def _read(self, due: Sequence[RowT]) -> Mapping[str, SeenT]:
        try:
            return await self.follower.read(due)
        except Unavailable:
            await self.follower.put_off(due, delay_s=self._poll_interval_s)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self.follower.put_off(due, delay_s=0))
            raise

    async def _act_on_all(
        self, due: Sequence[RowT], seen: Mapping[str, SeenT], woken: set[Wake]
    ) -> None:
        for place, row in enumerate(due):
            try:
                woken.update(await self.follower.act(row, seen[row.id]))
            except Unavailable as away:
                if await self.follower.is_at_fault(away):
                    woken.update(await self.follower.failed(row, seen[row.id], away))
                    continue
                await self.follower.put_off(due[place:], delay_s=self._poll_interval_s)
                raise
            except asyncio.CancelledError:
                await asyncio.shield(self.follower.put_off(due[place:], delay_s=0))
                raise
            except Exception:
                # A bug with one download must not keep the others from being followed.
                log.exception("look_failed", ticket=row.id)
