"""The WebSocket messages: every client gets each one, unless it is too slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping

BUFFER = 256  # messages; a client that lags further behind silently loses the oldest


class Hub:
    """Broadcasts without waiting for any client."""

    def __init__(self) -> None:
        self._clients: set[asyncio.Queue[str]] = set()
        self.lag_events = 0

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @contextlib.contextmanager
    def subscription(self) -> Iterator[asyncio.Queue[str]]:
        """A queue that gets every message from now on, as JSON text."""
        queue: asyncio.Queue[str] = asyncio.Queue(BUFFER)
        self._clients.add(queue)
        try:
            yield queue
        finally:
            self._clients.discard(queue)

    def broadcast(self, message: Mapping[str, object]) -> None:
        """Send `message` to all clients; one whose buffer is full loses its oldest message."""
        if not self._clients:
            return
        text = json.dumps(message, ensure_ascii=False)
        for queue in self._clients:
            if queue.full():
                queue.get_nowait()
                self.lag_events += 1
            queue.put_nowait(text)
