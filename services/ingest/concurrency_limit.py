"""A bound on the requests that are handled at once. The rest waits for a while, then gets 503."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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
        async with self._place(send) as leaving:
            await self._app(scope, receive, leaving)

    @asynccontextmanager
    async def _place(self, send: Send) -> AsyncIterator[Send]:
        """Gives `send`, with which the place that was taken becomes free; at the end it is."""
        taken = True

        def free() -> None:
            nonlocal taken
            if taken:
                taken = False
                self._slots.release()

        async def leaving(message: Message) -> None:
            free()
            await send(message)

        try:
            yield leaving
        finally:
            free()


def _too_many() -> ASGIApp:
    return problems.problem(
        503,
        "unavailable",
        "Too many requests at once",
        "nothing was done; send the same request again in a few seconds",
        {"Retry-After": str(_RETRY_AFTER_S)},
    )
