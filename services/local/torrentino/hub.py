"""The WebSocket firehose: every client gets every message, as long as it keeps up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping

BUFFER = 256  # messages a client may lag behind before it loses the oldest, silently


class Hub:
    """Broadcasts without waiting for anybody."""

    def __init__(self) -> None:
        self._clients: set[asyncio.Queue[str]] = set()
        self.lag_events = 0

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    @contextlib.contextmanager
    def subscription(self) -> Iterator[asyncio.Queue[str]]:
        """A queue that gets every message from now on, whole, as JSON text."""
        queue: asyncio.Queue[str] = asyncio.Queue(BUFFER)
        self._clients.add(queue)
        try:
            yield queue
        finally:
            self._clients.discard(queue)

    def broadcast(self, message: Mapping[str, object]) -> None:
        """Hand `message` to all; whoever's buffer is full loses its oldest one."""
        if not self._clients:
            return
        text = json.dumps(message, ensure_ascii=False)
        for queue in self._clients:
            if queue.full():
                queue.get_nowait()
                self.lag_events += 1
            queue.put_nowait(text)
