"""Optional reads of Torrentino: what they tell helps, and nothing waits for it.

A required read (a ticket, a torrent, a list) raises `Unavailable` and pauses the work. An optional
one is asked here, and here only: it has a short deadline and a back-off of its own, says once that
it is missing, and gives MISSING. Its caller names what it does without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Literal, Protocol, TypeAlias, TypeVar

import structlog

from shared.backoff import Backoff
from shared.errors import Unavailable

log = structlog.get_logger()

T = TypeVar("T")

Name: TypeAlias = Literal["audit", "catalog", "pipeline", "orchestrator", "configuration"]

_DEADLINE_S = 3.0
# Torrentino asks its indexers for it.
_CONFIGURATION_S = 15.0
_PAUSES = Backoff(first_s=10.0, longest_s=600.0)


class Missing(Enum):
    """The type of `MISSING`, which is no answer: also None may be one."""

    MISSING = "missing"


MISSING = Missing.MISSING


class Source(Protocol):
    """The reads themselves, each of which raises `Unavailable`: `TorrentinoClient`."""

    async def conversion_input(self, ticket_id: str) -> str | None:
        """The path that the pipeline last began to convert for the ticket."""
        ...

    async def catalog_files(self, info_hash: str) -> list[tuple[str, int]] | None:
        """Path and size of the torrent's files."""
        ...

    async def pipeline(self) -> frozenset[str] | None:
        """The tickets that are being converted or placed."""
        ...

    async def orchestrator_runs(self) -> bool:
        """Whether tickets are being worked on at all."""
        ...

    async def searches(self) -> bool:
        """Whether a searcher is configured."""
        ...

    async def downloads(self) -> bool:
        """Whether a torrent client is configured."""
        ...


class LookUps:
    """The optional reads of one Torrentino."""

    def __init__(self, source: Source, *, now: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._now = now
        self._until: dict[Name, float] = {}
        # Of those that are missing: how often in a row, and why.
        self._failures: dict[Name, int] = {}
        self._details: dict[Name, str] = {}
        # Called with what is missing, in words, or None, whenever that changes.
        self.tell: Callable[[str | None], None] = lambda _: None

    async def conversion_input(self, ticket_id: str) -> str | Missing | None:
        """As `Source.conversion_input`."""
        return await self._ask("audit", lambda: self._source.conversion_input(ticket_id))

    async def catalog_files(self, info_hash: str) -> list[tuple[str, int]] | Missing | None:
        """As `Source.catalog_files`."""
        return await self._ask("catalog", lambda: self._source.catalog_files(info_hash))

    async def pipeline(self) -> frozenset[str] | Missing | None:
        """As `Source.pipeline`."""
        return await self._ask("pipeline", self._source.pipeline)

    async def orchestrator_runs(self) -> bool | Missing:
        """As `Source.orchestrator_runs`."""
        return await self._ask("orchestrator", self._source.orchestrator_runs)

    async def lacks(self) -> str | Missing | None:
        """What is not configured at Torrentino that direct acquisition needs; None: nothing."""

        async def read() -> str | None:
            if not await self._source.searches():
                return "searcher"
            return None if await self._source.downloads() else "torrent client"

        return await self._ask("configuration", read, deadline_s=_CONFIGURATION_S)

    async def _ask(
        self, name: Name, read: Callable[[], Awaitable[T]], *, deadline_s: float = _DEADLINE_S
    ) -> T | Missing:
        if self._now() < self._until.get(name, 0.0):
            return MISSING
        try:
            async with asyncio.timeout(deadline_s):
                answer = await read()
        except TimeoutError:
            self._missing(name, f"no answer within {deadline_s:g} s")
        except Unavailable as away:
            self._missing(name, away.detail)
        else:
            self._there(name)
            return answer
        return MISSING

    def _missing(self, name: Name, detail: str) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        self._until[name] = self._now() + _PAUSES.grown_s(failures - 1)
        if failures == 1:
            log.warning("look_up_missing", look_up=name, detail=detail)
            self._details[name] = detail
            self._tell()

    def _there(self, name: Name) -> None:
        if self._failures.pop(name, 0):
            self._until.pop(name, None)
            self._details.pop(name, None)
            log.info("look_up_back", look_up=name)
            self._tell()

    def _tell(self) -> None:
        missing = "; ".join(f"{name}: {why}" for name, why in sorted(self._details.items()))
        without = f"Torrentino does not tell, and work continues without: {missing}"
        self.tell(without if missing else None)
