"""The connection to NATS: wake-ups, events out, requests in.

Correctness does not depend on it: PostgreSQL has what a lost message would have said, and every
service sweeps. So a wake-up that cannot be sent is dropped. Only publishing an event or a dead
message reports that it failed; the caller then repeats it from the outbox or the stream.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import PubAck

from shared.bus import access
from shared.bus.access import words
from shared.bus.durable import Durable
from shared.bus.streams import ensure_streams, own_streams
from shared.bus.subjects import REQUESTS_STREAM, Wake, wake_subject
from shared.errors import DependencyDown, Misconfigured
from shared.health import Health
from shared.stop import run_until, unless

log = structlog.get_logger()

_CONNECT_TIMEOUT_S = 5
PUBLISH_TIMEOUT_S = 5
_CLOSE_TIMEOUT_S = 3
_RETRY_S = 1
# The limit of a message's size until the server has sent its own: NATS' default.
_MAX_PAYLOAD = 1024 * 1024
# Bytes that nats-py and the server add to our headers, at most.
_ENVELOPE = 1024
# Permissions that are logged as missing, at most: there is no end of event subjects.
_MOST_FORBIDDEN = 100

_DOWN = (OSError, TimeoutError, asyncio.TimeoutError, nats.errors.Error, nats.js.errors.Error)


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One message for JetStream; `id` is its `Nats-Msg-Id`."""

    subject: str
    body: bytes
    id: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """The size that the server compares with its max_payload, a little rounded up."""
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers.items())
        return len(self.body) + headers + _ENVELOPE


class NotAccepted(DependencyDown):
    """NATS refuses some messages for good; all others are stored."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("nats", f"not accepted: {reasons}")
        # By the id of the message.
        self.reasons = reasons


@contextmanager
def translated() -> Iterator[None]:
    """Turn nats-py's errors into `DependencyDown`."""
    try:
        yield
    except _DOWN as error:
        raise DependencyDown("nats", words(error)) from error


class Bus:
    """The one connection of a process; `run()` makes it, and makes it again."""

    def __init__(
        self, urls: str, *, name: str, health: Health, ca_file: Path | None = None
    ) -> None:
        self._urls = [url.strip() for url in urls.split(",")]
        self._name = name
        self._ca_file = ca_file
        self._health = health
        self.client: Client | None = None
        self._js: JetStreamContext | None = None
        self._wakes: dict[Wake, list[asyncio.Event]] = {}
        self._queues: dict[Wake, str] = {}
        self._heard: list[tuple[str, Callable[[str], None]]] = []
        self.connected = asyncio.Event()
        # Awaited before the stream of events is made; the relay sets it.
        self.before_new_events: Callable[[], Awaitable[None]] | None = None
        # Awaited for the name of this installation, until it is known; the relay sets it.
        self.installation: Callable[[], Awaitable[str]] | None = None
        self._installation: str | None = None
        # Whether streams of an older release are to be made ours; one service has the right to.
        self.owns_streams = False
        # Whether a stream may be missing.
        self._unsure = True
        self._forbidden: set[str] = set()

    def listen(self, kind: Wake, wake: asyncio.Event, *, queue: str) -> None:
        """Set `wake` when a wake-up of this kind arrives; one process of `queue` gets each."""
        self._wakes.setdefault(kind, []).append(wake)
        self._queues[kind] = queue

    def hear(self, subject: str, heard: Callable[[str], None]) -> None:
        """Call `heard` with the subject of each message on `subject`, as a hint.

        Call it before `run`. What is sent while there is no connection is not heard.
        """
        self._heard.append((subject, heard))

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, connect again when the connection has ended, and drain at the stop."""
        await run_until(stop, self._turn)
        await self.close()

    async def _turn(self, stop: asyncio.Event) -> float:
        ended = asyncio.Event()
        # nats-py tries for ever to connect; the stop must not wait for it.
        if not await unless(stop, self._connect(ended)):
            return _RETRY_S
        await unless(stop, ended.wait())
        return 0.0

    async def _connect(self, ended: asyncio.Event) -> bool:
        """Make a connection with its subscriptions; `ended` is set when it has ended for good."""
        # A connection that ended during its setup may have left it set.
        self.connected.clear()
        try:
            # Read each time, for certificates are renewed.
            tls = access.tls_context(self._ca_file)
        except Misconfigured as error:
            self._health.failed(error)
            return False
        client = access.StrictClient()
        try:
            await self._open(client, tls, ended)
        except _DOWN as error:
            self._failed(error)
            await self._give_up(client)
            return False
        except asyncio.CancelledError:
            await self._give_up(client)
            raise
        except Exception:
            log.exception("nats_connect_failed")
            self._health.down("nats", "cannot connect, see the log")
            await self._give_up(client)
            return False
        await self._on_back()
        if not self.connected.is_set() and client.is_connected:
            # The streams are another installation's: nothing of theirs is touched.
            await self._give_up(client)
            return False
        return True

    async def _open(self, client: Client, tls: ssl.SSLContext | None, ended: asyncio.Event) -> None:
        async def closed() -> None:
            ended.set()

        await client.connect(
            servers=self._urls,
            name=self._name,
            inbox_prefix=access.inbox_prefix(self._urls),
            tls=tls,
            connect_timeout=_CONNECT_TIMEOUT_S,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RETRY_S,
            ping_interval=20,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_lost,
            reconnected_cb=self._on_back,
            closed_cb=closed,
        )
        self.client, self._js = client, client.jetstream(timeout=PUBLISH_TIMEOUT_S)
        await self._subscribe(client)

    async def _give_up(self, client: Client) -> None:
        self.client = self._js = None
        await _close(client)

    async def _subscribe(self, client: Client) -> None:
        for kind, wakes in self._wakes.items():

            async def woken(_: Msg, wakes: list[asyncio.Event] = wakes) -> None:
                for wake in wakes:
                    wake.set()

            await client.subscribe(wake_subject(kind), queue=self._queues[kind], cb=woken)
        for subject, heard in self._heard:

            async def said(message: Msg, heard: Callable[[str], None] = heard) -> None:
                heard(message.subject)

            await client.subscribe(subject, cb=said)

    async def _on_error(self, error: Exception) -> None:
        what = access.forbidden(error)
        if what is not None:
            self._log_forbidden(what)
        elif self.connected.is_set():
            log.warning("nats_error", error=words(error))
        else:
            self._failed(error)

    def _log_forbidden(self, what: str) -> None:
        """Log once what the server forbids; the caller that waits for an answer has a timeout."""
        if what not in self._forbidden and len(self._forbidden) < _MOST_FORBIDDEN:
            self._forbidden.add(what)
            log.error("nats_forbids", what=what, why="the user of NATS_URL lacks the permission")

    def _failed(self, error: BaseException) -> None:
        unavailable = access.unavailable(error)
        known = self._health.breaker("nats").error
        # An alarm stays until we are connected: a server may close the connection before its
        # refusal is read, and of several servers another one may be away.
        if isinstance(unavailable, Misconfigured) or not isinstance(known, Misconfigured):
            self._health.failed(unavailable)

    async def _on_lost(self) -> None:
        self.connected.clear()
        if self.client is not None:  # else we close it
            self._health.down("nats", "connection lost, reconnecting")

    async def _on_back(self) -> None:
        # The server may have come back without its storage.
        self._unsure = True
        try:
            await self.ensure()
        except DependencyDown as error:
            log.warning("streams_not_ensured", error=error.detail)
        except Misconfigured as error:
            self._health.failed(error)
            return
        if self.client is None or not self.client.is_connected:
            return  # lost again meanwhile; the next connection comes here, too
        self.connected.set()
        self._health.up("nats")
        # The sweep finds what was missed while there was no connection.
        for wakes in self._wakes.values():
            for wake in wakes:
                wake.set()

    def jetstream(self) -> JetStreamContext:
        """The JetStream of this connection.

        Raises:
            DependencyDown: NATS is not connected.
        """
        if self._js is None or self.client is None or not self.client.is_connected:
            raise DependencyDown("nats", "not connected")
        return self._js

    async def ensure(self) -> None:
        """Make the streams that may be missing; call it outside a transaction.

        Raises:
            DependencyDown: NATS is away, or PostgreSQL is and events would be lost.
            Misconfigured: the streams belong to another installation.
        """
        if self._unsure:
            if self._installation is None and self.installation is not None:
                self._installation = await self.installation()
            with translated():
                await ensure_streams(
                    self.jetstream(),
                    before_events=self.before_new_events,
                    installation=self._installation,
                )
            self._unsure = False

    async def _own(self, js: JetStreamContext) -> None:
        """Make streams that name no installation ours, once."""
        if self._installation is None or not self.owns_streams:
            return
        self.owns_streams = False
        try:
            await own_streams(js, self._installation, another_s=False)
        except _DOWN as error:
            log.warning("streams_not_owned", error=words(error))

    async def wake(self, kind: Wake) -> None:
        """Hint that there is work; dropped while NATS is away, for the sweep finds the work."""
        client = self.client
        if client is None or not client.is_connected:
            return
        try:
            await client.publish(wake_subject(kind), b"")
        except _DOWN as error:
            log.debug("wake_dropped", kind=kind, error=str(error))

    @property
    def max_payload(self) -> int:
        """The most bytes that a message may have, headers included."""
        known = self.client.max_payload if self.client is not None else 0
        return known or _MAX_PAYLOAD

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish to JetStream; returns when every message is stored.

        Raises:
            NotAccepted: all are stored but the ones that it names, which are refused for good.
            DependencyDown: not all are stored; repeat them all, NATS drops known ids.
        """
        with translated():
            js, limit = self.jetstream(), self.max_payload
            # The server ends the connection of a client that sends a larger message.
            refused = {
                m.id: f"{m.size_bytes} bytes, NATS takes {limit}"
                for m in messages
                if m.size_bytes > limit
            }
            rest = [m for m in messages if m.id not in refused]
            try:
                # nats-py loses the server's refusals when it publishes without waiting. Publishing
                # one by one is slow, and returns them.
                for message in await _publish_at_once(js, rest):
                    reason = await _publish_one(self.jetstream(), message)
                    if reason is not None:
                        refused[message.id] = reason
            except nats.js.errors.NoStreamResponseError:
                self._unsure = True
                raise
            if rest:
                # An earlier publish without an answer may have marked it as away.
                self._health.up("nats")
            if refused:
                raise NotAccepted(refused)

    @asynccontextmanager
    async def consumer(
        self, durable: str, filters: list[str]
    ) -> AsyncIterator[tuple[JetStreamContext.PullSubscription, Durable]]:
        """A pull subscription to the requests stream, and its durable, made if it is not there."""
        with translated():
            js = self.jetstream()
            self._unsure = True
            await self.ensure()
            await self._own(js)
            made = Durable(js, durable, filters)
            await made.make()
            subscription = await js.pull_subscribe_bind(durable, REQUESTS_STREAM)
            try:
                yield subscription, made
            finally:
                try:
                    await subscription.unsubscribe()
                except _DOWN as error:
                    log.debug("unsubscribe_failed", error=str(error))

    async def close(self) -> None:
        """Send what is buffered and close."""
        client, self.client, self._js = self.client, None, None
        self.connected.clear()
        if client is not None:
            await _close(client)


async def _publish_at_once(
    js: JetStreamContext, messages: Sequence[Outgoing]
) -> Sequence[Outgoing]:
    """Publish in order without waiting in between; returns those that got no answer in time."""
    acks: list[asyncio.Future[PubAck]] = []
    try:
        async with asyncio.timeout(PUBLISH_TIMEOUT_S):
            for message in messages:
                headers = _headers(message)
                ack = await js.publish_async(message.subject, message.body, headers=headers)
                acks.append(ack)
            if acks:
                await asyncio.wait(acks)
    except TimeoutError:
        log.info("publish_unanswered", messages=len(messages))
    finally:
        answered = {m.id for m, ack in zip(messages, acks, strict=False) if ack.done()}
        for ack in acks:
            # A pending one would keep its place in the context's window for ever.
            ack.cancel()
    for ack in acks:
        if not ack.cancelled():
            ack.result()
    return [message for message in messages if message.id not in answered]


async def _publish_one(js: JetStreamContext, message: Outgoing) -> str | None:
    """Publish and wait; returns why the server refuses it for good, if it does."""
    try:
        await js.publish(message.subject, message.body, headers=_headers(message))
    except (nats.js.errors.BadRequestError, nats.errors.BadSubjectError) as error:
        return words(error)
    return None


def _headers(message: Outgoing) -> dict[str, str]:
    return {**message.headers, "Nats-Msg-Id": message.id}


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await access.to_the_end(client.drain() if client.is_connected else client.close())
    except _DOWN as error:
        log.debug("nats_close", error=words(error))
