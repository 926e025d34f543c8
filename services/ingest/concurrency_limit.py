"""A bound on the requests that are handled at once. The rest waits for a while, then gets 503.

A request that waits for something long gives its place to others meanwhile (`without_place`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ingest import problems
from shared.errors import Refused

# As many as the pool has connections: each request takes one at a time, and more would wait there.
_AT_ONCE = 10
_PATIENCE_S = 10.0
_RETRY_AFTER_S = 5

# Raises `Refused` for a request without a valid key.
Door = Callable[[Request], object]


class _Place:
    """One of the places, which was taken."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._taken = True

    def free(self) -> None:
        if self._taken:
            self._taken = False
            self._slots.release()

    async def take_again(self) -> None:
        await self._slots.acquire()
        self._taken = True


# The place of the request of this task.
_PLACE: ContextVar[_Place | None] = ContextVar("place", default=None)


@asynccontextmanager
async def without_place() -> AsyncIterator[None]:
    """Give the request's place, if it has one, to others for the block."""
    place = _PLACE.get()
    if place is None:
        yield
        return
    place.free()
    try:
        yield
    finally:
        await place.take_again()


class ConcurrencyLimit:
    """ASGI middleware; a request that waits too long is refused before anything was done.

    A request without a valid key takes no place, and a place is free as soon as its answer is
    ready: callers that do not read their answers occupy none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        door: Door,
        at_once: int = _AT_ONCE,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._app = app
        self._door = door
        self._slots = asyncio.Semaphore(at_once)
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._door(request)
        except Refused as refusal:
            await (await problems.refused(request, refusal))(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await self._slots.acquire()
        except TimeoutError:
            await _too_many()(scope, receive, send)
            return
        place = _Place(self._slots)
        token = _PLACE.set(place)

        async def leaving(message: Message) -> None:
            place.free()
            await send(message)

        try:
            await self._app(scope, receive, leaving)
        finally:
            _PLACE.reset(token)
            place.free()


def _too_many() -> ASGIApp:
    return problems.problem(
        503,
        "unavailable",
        "Too many requests at once",
        "nothing was done; send the same request again in a few seconds",
        {"Retry-After": str(_RETRY_AFTER_S)},
    )
