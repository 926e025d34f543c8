"""Torrentino's WebSocket: hints that a ticket may have changed, never the change itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from shared.backoff import Backoff
from shared.clock import Clock, SystemClock
from shared.redaction import redact
from shared.torrentino.http import auth_headers, base_url_of

log = structlog.get_logger(__name__)

RECONNECT = Backoff(first_s=0.5, longest_s=30)

_HINTS = ("ticket_update", "ticket_deleted")
_MAX_ID_CHARS = 200
_LOST = (OSError, TimeoutError, WebSocketException)


async def ticket_hints(
    base_url: str,
    api_key: str | None,
    *,
    backoff: Backoff = RECONNECT,
    rng: random.Random | None = None,
    clock: Clock | None = None,
    open_timeout_s: float = 10,
    ping_interval_s: float = 20,
) -> AsyncGenerator[str, None]:
    """Yield the ids of tickets to poll; "" after every (re)connection: poll all of them.

    Hints are lost without notice (a slow reader, a cut connection), so keep polling. It never ends
    and never fails by itself: it reconnects for ever with the pauses of `backoff`, and logs a
    problem once until the problem changes. Stop it by cancelling its task, or with `aclosing`.

    Raises:
        Misconfigured: `base_url` or `api_key` can never work.
    """
    attempts = _Attempts(
        backoff,
        rng or random.Random(),  # noqa: S311 jitter is no secret
        clock or SystemClock(),
    )
    connections = aiter(
        _Connect(
            websocket_url(base_url),
            additional_headers=auth_headers(api_key),
            proxy=None,
            open_timeout=open_timeout_s,
            ping_interval=ping_interval_s,
            ping_timeout=ping_interval_s,
            close_timeout=1,
            process_exception=attempts.failed,
            reconnect_delays=attempts.pauses,
        )
    )
    assert isinstance(connections, AsyncGenerator), "aclosing closes what it has open"
    async with aclosing(connections):
        async for connection in connections:
            attempts.connected()
            yield ""
            try:
                async for message in connection:
                    if ticket_id := _ticket_id(message):
                        attempts.useful()
                        yield ticket_id
                attempts.lost("the server closed the connection")
            except WebSocketException as exc:
                attempts.lost(_describe(exc))
            # websockets pauses after a failed attempt only, and would reconnect at once.
            await asyncio.sleep(attempts.pause_s())


class _Connect(connect):
    """Follows no redirect: websockets would keep to the new address, without the key."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class _Attempts:
    """How long to pause before the next attempt, and which problem was logged last.

    A connection that the server drops at once counts as a failed attempt: it brings nothing, and
    each costs the caller a poll of every ticket. A hint, or a long life, resets the pauses.
    """

    def __init__(self, backoff: Backoff, rng: random.Random, clock: Clock) -> None:
        self._backoff = backoff
        self._rng = rng
        self._clock = clock
        self._earlier = 0
        self._connected_at = 0.0
        self._problem = ""

    def connected(self) -> None:
        self._connected_at = self._clock.monotonic()
        log.info("torrentino_hints_connected", after=self._problem or None)
        self._problem = ""

    def useful(self) -> None:
        self._earlier = 0

    def lost(self, problem: str) -> None:
        """The connection has ended."""
        if self._clock.monotonic() - self._connected_at >= self._backoff.longest_s:
            self._earlier = 0
        self._note(problem)

    def failed(self, exc: Exception) -> Exception | None:
        """The attempt failed; returns None to try again, or the error that a bug is."""
        if not isinstance(exc, _LOST):
            return exc
        self._note(_describe(exc))
        return None

    def pauses(self) -> Generator[float, None, None]:
        while True:
            yield self.pause_s()

    def pause_s(self) -> float:
        pause_s = self._backoff.pause_s(self._earlier, self._rng)
        self._earlier += 1
        return pause_s

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("torrentino_hints_lost", problem=problem)
        self._problem = problem


def websocket_url(base_url: str) -> str:
    """The URL of the WebSocket of this API base.

    Raises:
        Misconfigured: `base_url` is not an absolute http or https URL.
    """
    url = base_url_of(base_url)
    scheme = "wss" if url.scheme == "https" else "ws"
    return f"{url.copy_with(scheme=scheme)}/ws"


def _ticket_id(message: str | bytes) -> str | None:
    """The ticket that a message is about; None for a message that is no hint."""
    try:
        parsed = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or parsed.get("type") not in _HINTS:
        return None
    ticket_id = parsed.get("ticket_id")
    if not isinstance(ticket_id, str) or not 0 < len(ticket_id) <= _MAX_ID_CHARS:
        return None
    return ticket_id


def _describe(exc: Exception) -> str:
    if isinstance(exc, InvalidStatus):
        status = exc.response.status_code
        if status in (401, 403):
            return f"TORRENTINO_API_KEY is refused ({status})"
        return f"the handshake was answered with {status}"
    return redact(f"{type(exc).__name__}: {exc}")[:300]
