"""The connection to NATS: wake-ups, events out, requests in.

Nothing here is needed for correctness: what a lost message would have said stands in PostgreSQL,
and every reader sweeps. So a wake-up that cannot be sent is dropped, and only publishing an event
or a dead message reports that it failed, to be repeated from where it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from shared.bus.streams import consumer, ensure_streams
from shared.bus.subjects import REQUESTS_STREAM, Wake, wake_subject
from shared.errors import DependencyDown
from shared.health import Health

log = structlog.get_logger()

_CONNECT_TIMEOUT_S = 5
_PUBLISH_TIMEOUT_S = 10
_RETRY_S = 1

_DOWN = (OSError, TimeoutError, asyncio.TimeoutError, nats.errors.Error, nats.js.errors.Error)


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One message for JetStream; `id` is its `Nats-Msg-Id`."""

    subject: str
    body: bytes
    id: str
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def translated() -> Iterator[None]:
    """Turn nats-py's errors into `DependencyDown`."""
    try:
        yield
    except _DOWN as error:
        raise DependencyDown("nats", str(error) or type(error).__name__) from error


class Bus:
    """One connection for a process; `run()` makes it, and makes it again."""

    def __init__(self, urls: str, *, name: str, health: Health) -> None:
        self._urls = [url.strip() for url in urls.split(",")]
        self._name = name
        self._health = health
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._wakes: dict[Wake, list[asyncio.Event]] = {}
        self._queues: dict[Wake, str] = {}
        self.connected = asyncio.Event()

    def listen(self, kind: Wake, wake: asyncio.Event, *, queue: str) -> None:
        """Set `wake` when a wake-up of this kind arrives; one of `queue`'s copies gets each."""
        self._wakes.setdefault(kind, []).append(wake)
        self._queues[kind] = queue

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, stay connected, and drain at the stop."""
        while not stop.is_set() and not await self._connect():
            try:
                async with asyncio.timeout(_RETRY_S):
                    await stop.wait()
            except TimeoutError:
                continue
        await stop.wait()

    async def _connect(self) -> bool:
        client = Client()
        try:
            await client.connect(
                servers=self._urls,
                name=self._name,
                connect_timeout=_CONNECT_TIMEOUT_S,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RETRY_S,
                ping_interval=20,
                max_outstanding_pings=2,
                error_cb=self._on_error,
                disconnected_cb=self._on_lost,
                reconnected_cb=self._on_back,
            )
            self._client, self._js = client, client.jetstream(timeout=_PUBLISH_TIMEOUT_S)
            await self._subscribe(client)
            await ensure_streams(self._js)
        except _DOWN as error:
            self._health.down("nats", str(error) or type(error).__name__)
            self._client = self._js = None
            await _close(client)
            return False
        await self._on_back()
        return True

    async def _subscribe(self, client: Client) -> None:
        for kind, wakes in self._wakes.items():

            async def woken(_: Msg, wakes: list[asyncio.Event] = wakes) -> None:
                for wake in wakes:
                    wake.set()

            await client.subscribe(wake_subject(kind), queue=self._queues[kind], cb=woken)

    async def _on_error(self, error: Exception) -> None:
        if self.connected.is_set():
            log.warning("nats_error", error=str(error) or type(error).__name__)

    async def _on_lost(self) -> None:
        self.connected.clear()
        self._health.down("nats", "connection lost, reconnecting")

    async def _on_back(self) -> None:
        # The server may have come back without its storage.
        try:
            await ensure_streams(self._jetstream())
        except (*_DOWN, DependencyDown) as error:
            log.warning("streams_not_ensured", error=str(error))
        self.connected.set()
        self._health.up("nats")
        # Whatever was missed while we were away is found by a look at the database.
        for wakes in self._wakes.values():
            for wake in wakes:
                wake.set()

    def _jetstream(self) -> JetStreamContext:
        if self._js is None or self._client is None or not self._client.is_connected:
            raise DependencyDown("nats", "not connected")
        return self._js

    async def wake(self, kind: Wake) -> None:
        """Hint that there is work; dropped when NATS is away, for the sweep finds it too."""
        client = self._client
        if client is None or not client.is_connected:
            return
        try:
            await client.publish(wake_subject(kind), b"")
        except _DOWN as error:
            log.debug("wake_dropped", kind=kind, error=str(error))

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish to JetStream; returns when every message is stored.

        Raises:
            DependencyDown: not all of them are; repeat them all, their ids keep them single.
        """
        with translated():
            js = self._jetstream()
            try:
                async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                    await _publish_all(js, messages)
            except nats.js.errors.NoStreamResponseError:
                await ensure_streams(js)
                raise
            except TimeoutError:
                # Futures of a connection that was cut stay pending and keep their places
                # in the context's window: only a new context is sure to be free of them.
                if self._client is not None:
                    self._js = self._client.jetstream(timeout=_PUBLISH_TIMEOUT_S)
                raise

    @asynccontextmanager
    async def consumer(
        self, durable: str, filters: list[str]
    ) -> AsyncIterator[JetStreamContext.PullSubscription]:
        """A durable pull subscription to the requests stream, made if it is not there."""
        with translated():
            js = self._jetstream()
            await ensure_streams(js)
            await js.add_consumer(REQUESTS_STREAM, consumer(durable, filters))
            subscription = await js.pull_subscribe_bind(durable, REQUESTS_STREAM)
            try:
                yield subscription
            finally:
                try:
                    await subscription.unsubscribe()
                except _DOWN as error:
                    log.debug("unsubscribe_failed", error=str(error))

    async def close(self) -> None:
        """Send what is buffered and close."""
        client, self._client, self._js = self._client, None, None
        self.connected.clear()
        if client is not None:
            await _close(client)


async def _publish_all(js: JetStreamContext, messages: Sequence[Outgoing]) -> None:
    futures = [
        await js.publish_async(
            message.subject, message.body, headers={**message.headers, "Nats-Msg-Id": message.id}
        )
        for message in messages
    ]
    for future in futures:
        await future


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(3):
            if client.is_connected:
                await client.drain()
            else:
                await client.close()
    except _DOWN as error:
        log.debug("nats_close", error=str(error))
