"""Who is at fault for a failure of one item: the item, or a place that all items need.

    the place's own check, right after the failure, fails       the place: Unavailable
    it passes, and the failure was met at the item's own files  the item: AttemptFailed
    it passes, and the failure says too little of its cause     unknown: HandedBack

Without this, one file that cannot be read would stop the fetching of all others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog

from services.fetcher_writer.delivery.base import NotThere
from services.fetcher_writer.media import Media
from services.fetcher_writer.places import Places
from services.fetcher_writer.work import Work
from shared.errors import (
    AttemptFailed,
    Dependency,
    DependencyDown,
    DownloadsError,
    ErrorType,
    Unavailable,
    Unexplained,
)
from shared.media.ffmpeg_process import child_of
from shared.media.tools import missing_tools

log = structlog.get_logger()

# How often an item is handed back before its attempt ends: with the pauses of `Outcomes`, more
# than an hour of trouble whose cause is not known.
_MOST_UNEXPLAINED = 12
# A fault of our own disk may be over with the next write; one that is met again, while others are
# placed, is one of this item's name or folder.
_MOST_ON_MEDIA = 3
# A network filesystem shows a folder that another machine has made after a minute at most.
_MOST_NOT_THERE = 3
_STARTS_S = 10.0


class HandedBack(DownloadsError):
    """The item is tried again later, `most` times in a row at most; nobody is known to be at fault.

    `failure` is what ends its attempt after that.
    """

    def __init__(self, reason: str, *, most: int, failure: AttemptFailed) -> None:
        super().__init__(reason)
        self.most = most
        self.failure = failure


class SecondLook:
    """Runs the check of the place in which a failure was met."""

    def __init__(self, places: Places, media: Media) -> None:
        self._places = places
        self._media = media

    async def judge(self, work: Work, met: Exception) -> Exception:
        """What the failure means for the item: see the table above.

        Raises:
            DependencyDown: PostgreSQL is away.
        """
        try:
            match met:
                case AttemptFailed(error_type=ErrorType.STORAGE):
                    return await self._of_storage(work, met)
                case Unavailable(dependency="postgres" | "nats" | "space"):
                    return met
                case Unavailable():
                    await self._check(met.dependency, work)
                    return _of_one(met)
                case OSError() | MemoryError():
                    error = Unexplained("media", f"{type(met).__name__}: {met}")
                    await self._check("media", work)
                    return _of_one(error)
        except Unavailable as place:
            if place.dependency == "postgres":
                raise
            return place
        return met

    async def _of_storage(self, work: Work, failure: AttemptFailed) -> Exception:
        """Files are missing also below an unmounted disk: then no attempt is used."""
        await self._media.root.check()
        if work.released is not None:
            return failure
        await self._places.require(work.ticket.delivery, work.ticket.id, work.ticket.path)
        if isinstance(failure, NotThere):
            return HandedBack(failure.message, most=_MOST_NOT_THERE, failure=failure)
        return failure

    async def _check(self, dependency: Dependency, work: Work) -> None:
        """Return when what failed works for others.

        Raises:
            Unavailable: it does not.
        """
        ticket = work.ticket
        checks: dict[Dependency, Callable[[], Awaitable[None]]] = {
            "incoming": lambda: self._places.require(ticket.delivery, ticket.id, ticket.path),
            "media": self._media.check_writing,
            "media_write": self._media.check_writing,
            "ffmpeg": self._check_ffmpeg,
        }
        if self._media.catalog is not None:
            checks["catalog"] = self._media.catalog.check
        if (check := checks.get(dependency)) is not None:
            await check()

    async def _check_ffmpeg(self) -> None:
        tools = await asyncio.to_thread(self._media.find_tools)
        for program in (tools.ffmpeg, tools.ffprobe):
            if not await asyncio.to_thread(os.access, program, os.X_OK):
                raise missing_tools(f"{program} is gone")
        try:
            async with asyncio.timeout(_STARTS_S), child_of((tools.ffmpeg, "-version")) as child:
                await child.communicate()
        except TimeoutError as exc:
            raise DependencyDown("ffmpeg", f"ffmpeg does not start within {_STARTS_S:g} s") from exc


def _of_one(met: Unavailable) -> Exception:
    """The outcome for the item, where the check of the place has passed."""
    where = f"{met.path}: " if met.path and met.path not in met.detail else ""
    evidence = {"dependency": met.dependency} | ({"path": met.path[:500]} if met.path else {})
    failure = AttemptFailed(ErrorType.STORAGE, f"{where}{met.detail}"[:1000], evidence)
    if isinstance(met, Unexplained) or met.dependency not in ("incoming", "media", "media_write"):
        return HandedBack(str(met), most=_MOST_UNEXPLAINED, failure=failure)
    if met.dependency == "incoming":
        return failure
    return HandedBack(str(met), most=_MOST_ON_MEDIA, failure=failure)
