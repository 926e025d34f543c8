"""What has to work before items are claimed, and how much may be claimed then."""

from __future__ import annotations

import asyncio
import math
import time

from services.fetcher_writer.delivery.base import DeliveryName
from services.fetcher_writer.disk_budget import MediaRoom, Room
from services.fetcher_writer.finish import Converter
from services.fetcher_writer.media import Media
from services.fetcher_writer.places import Places
from services.fetcher_writer.store import Store
from shared.errors import Dependency
from shared.health import Health

# The fetcher-writer claims nothing while one of them is away.
NEEDS: tuple[Dependency, ...] = ("media", "media_write", "space", "ffmpeg", "incoming")
# While one of them is tried again, fewer items are claimed at once.
_TRIED_WITH_FEWER: tuple[Dependency, ...] = ("media", "media_write", "space", "incoming")
# How long a check of writing to the media root stands, where nothing has failed since.
_WRITABLE_S = 3600.0


class Preconditions:
    """The media disk, ffmpeg, and the places where finished files lie."""

    def __init__(
        self,
        *,
        store: Store,
        places: Places,
        converter: Converter,
        media: Media,
        room: MediaRoom,
        health: Health,
    ) -> None:
        self._store = store
        self._places = places
        self._converter = converter
        self._media = media
        self._room = room
        self._health = health
        self._writable_until = -math.inf

    def at_once(self, concurrency: int) -> int:
        """How many of `concurrency` items may be in work: fewer after an outage."""
        return min(self._health.breaker(name).allowance(concurrency) for name in _TRIED_WITH_FEWER)

    async def check(self) -> Room | None:
        """How much may be claimed; None: the files take no space on the media disk.

        Raises:
            Unavailable: one of them cannot be used now.
        """
        await self._media.root.check()
        free_bytes, total_bytes = await self._room.check()
        self._health.up("media")
        await self._check_writing()
        await asyncio.to_thread(self._media.find_tools)
        self._health.up("ffmpeg")
        if not self._health.breaker("incoming").ok:
            # Before the claim: an outage must not fill the items' histories.
            await self._places.check()
            self._health.up("incoming")
        catalog = self._media.catalog
        if catalog is not None and not self._health.breaker("catalog").ok:
            await catalog.check()
            self._health.up("catalog")
        copied = await self._places.collector.taking_room(self._media.root.path)
        if not copied and not self._converter.converts:
            return None
        room = await self._room.room(free_bytes, total_bytes, self._times(copied))
        await self._store.put_off(room)
        return room

    async def _check_writing(self) -> None:
        ok = self._health.breaker("media_write").ok
        if ok and time.monotonic() < self._writable_until:
            return
        await self._media.check_writing()
        self._writable_until = time.monotonic() + _WRITABLE_S
        self._health.up("media_write")

    def _times(self, copied: frozenset[DeliveryName]) -> dict[DeliveryName, int]:
        """How often a file is written: when it is copied, and when it is converted."""
        again = 1 if self._converter.converts else 0
        names: tuple[DeliveryName, ...] = ("incoming", "torrent")
        return {name: again + (1 if name in copied else 0) for name in names}
