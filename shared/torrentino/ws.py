"""Torrentino's WebSocket: hints that a ticket may have changed, never the change itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from shared.clock import Clock, SystemClock
from shared.torrentino.http import auth_headers, base_url_of
from shared.torrentino.model import redact

log = structlog.get_logger(__name__)

_HINTS = ("ticket_update", "ticket_deleted")
_BACKOFF_BASE_S = 0.5
_BACKOFF_CAP_S = 30.0
_MAX_ID_CHARS = 200
_LOST = (OSError, TimeoutError, InvalidHandshake, ConnectionClosed)


async def ticket_hints(
    base_url: str,
    api_key: str | None,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rng: random.Random | None = None,
    clock: Clock | None = None,
    open_timeout_s: float = 10,
    ping_interval_s: float = 20,
) -> AsyncGenerator[str, None]:
    """Yield the ids of tickets to read; "" on every (re)connection: read all of them.

    Hints are lost without notice (a slow reader, a cut connection), so keep polling. Never ends
    and never fails by itself: it reconnects for ever, at most 30 s apart, and logs a problem
    once for as long as it stays the same. Stop it by cancelling its task, or with `aclosing`.

    Raises:
        Misconfigured: `base_url` or `api_key` can never work.
    """
    opener = _Opener(base_url, api_key, open_timeout_s, ping_interval_s)
    rng, clock = rng or random.Random(), clock or SystemClock()  # noqa: S311 jitter is no secret
    failures, problem = 0, ""
    while True:
        connected_at = None
        try:
            async with opener.connect() as connection:
                connected_at = clock.monotonic()
                problem = _log_connected(problem)
                yield ""
                async for message in connection:
                    if ticket_id := _ticket_id(message):
                        failures = 0
                        yield ticket_id
                problem = _log_lost(problem, "the server closed the connection")
        except _LOST as exc:
            problem = _log_lost(problem, _describe(exc))
        # A server that takes the connection and drops it at once is no better than one that is
        # down, and each connection costs the caller a read of every ticket.
        if connected_at is not None and clock.monotonic() - connected_at >= _BACKOFF_CAP_S:
            failures = 0
        await sleep(_delay_s(failures, rng))
        failures += 1


@dataclass(frozen=True)
class _Opener:
    base_url: str
    api_key: str | None
    open_timeout_s: float
    ping_interval_s: float

    def connect(self) -> connect:
        return connect(
            websocket_url(self.base_url),
            additional_headers=auth_headers(self.api_key),
            proxy=None,
            open_timeout=self.open_timeout_s,
            ping_interval=self.ping_interval_s,
            ping_timeout=self.ping_interval_s,
            close_timeout=1,
        )


def websocket_url(base_url: str) -> str:
    """Where the WebSocket of this API base is.

    Raises:
        Misconfigured: `base_url` is not an absolute http or https URL.
    """
    url = base_url_of(base_url)
    scheme = "wss" if url.scheme == "https" else "ws"
    return f"{url.copy_with(scheme=scheme)}/ws"


def _ticket_id(message: str | bytes) -> str | None:
    """The ticket that a message is about; None for every other message."""
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


def _delay_s(failures: int, rng: random.Random) -> float:
    grown = _BACKOFF_BASE_S * 2.0 ** min(failures, 16)
    return min(grown, _BACKOFF_CAP_S) * rng.uniform(0.5, 1.0)


def _describe(exc: Exception) -> str:
    if isinstance(exc, InvalidStatus):
        status = exc.response.status_code
        if status in (401, 403):
            return f"TORRENTINO_API_KEY is refused ({status})"
        return f"the handshake was answered with {status}"
    return redact(f"{type(exc).__name__}: {exc}")[:300]


def _log_connected(problem: str) -> str:
    log.info("torrentino_hints_connected", after=problem or None)
    return ""


def _log_lost(before: str, problem: str) -> str:
    if problem != before:
        log.warning("torrentino_hints_lost", problem=problem)
    return problem
