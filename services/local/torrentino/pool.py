"""The limit on jobs of one kind that run at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Pool:
    """The slots for one kind of job; the counts are those of `/pipeline/status`."""

    name: str
    max_concurrent: int
    active: int = 0
    queued: int = 0
    processed: int = 0
    failed: int = 0
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.max_concurrent)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and occupy it."""
        self.queued += 1
        try:
            await self._slots.acquire()
        finally:
            self.queued -= 1
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._slots.release()

    def json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "active_jobs": self.active,
            "max_concurrent": self.max_concurrent,
            "queued_jobs": self.queued,
            "total_processed": self.processed,
            "total_failed": self.failed,
        }

    def count(self, *, ok: bool) -> None:
        """Count one ended job."""
        if ok:
            self.processed += 1
        else:
            self.failed += 1
