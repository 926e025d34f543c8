"""How many requests are worked on at once: the rest waits at the door, and not for ever."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from services.ingest import problems

# Each takes a connection of the pool now and then, never two; more at once would only wait there,
# some of them behind their own commit.
_AT_ONCE = 10
_PATIENCE_S = 10.0
_RETRY_AFTER_S = 5


class Admission:
    """ASGI middleware: too many at once are told when to come back, before anything was done."""

    def __init__(
        self, app: ASGIApp, *, at_once: int = _AT_ONCE, patience_s: float = _PATIENCE_S
    ) -> None:
        self._app = app
        self._places = asyncio.Semaphore(at_once)
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await self._places.acquire()
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
        try:
            await self._app(scope, receive, send)
        finally:
            self._places.release()
