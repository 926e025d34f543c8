"""A bound on the requests that are handled at once. The rest waits for a while, then gets 503.

A request that waits for something long gives its place to others meanwhile (`without_place`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from services.ingest import problems

# As many as the pool has connections: each request takes one at a time, and more would wait there.
_AT_ONCE = 10
_PATIENCE_S = 10.0
_RETRY_AFTER_S = 5


# The places that the request of this task has one of.
_PLACES: ContextVar[asyncio.Semaphore | None] = ContextVar("places", default=None)


@asynccontextmanager
async def without_place() -> AsyncIterator[None]:
    """Give the request's place, if it has one, to others for the block."""
    places = _PLACES.get()
    if places is None:
        yield
        return
    places.release()
    try:
        yield
    finally:
        await places.acquire()


class ConcurrencyLimit:
    """ASGI middleware; a request that waits too long is refused before anything was done."""

    def __init__(
        self, app: ASGIApp, *, at_once: int = _AT_ONCE, patience_s: float = _PATIENCE_S
    ) -> None:
        self._app = app
        self._slots = asyncio.Semaphore(at_once)
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await self._slots.acquire()
        except TimeoutError:
            answer = problems.problem(
                503,
                "unavailable",
                "Too many requests at once",
                "nothing was done; send the same request again in a few seconds",
                {"Retry-After": str(_RETRY_AFTER_S)},
            )
            await answer(scope, receive, send)
            return
        token = _PLACES.set(self._slots)
        try:
            await self._app(scope, receive, send)
        finally:
            _PLACES.reset(token)
            self._slots.release()
