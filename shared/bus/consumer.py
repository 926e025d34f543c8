"""A durable pull consumer: every message ends acknowledged, repeated later, or dead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from shared.bus import subjects
from shared.bus.nats import Bus, Outgoing, translated
from shared.bus.streams import ACK_WAIT_S
from shared.crashpoints import reached
from shared.errors import InvalidRequest, Unavailable
from shared.health import Health
from shared.metrics import DEAD_MESSAGES
from shared.rejections import Rejections
from shared.stop import run_until

log = structlog.get_logger()

# Messages in hand, side by side, so that one slow album does not delay nineteen tracks.
_PLACES = 20
# The stop waits this long for a fetch to end: cut short, it could lose a message that just came.
_FETCH_S = 1.0
AGAIN_S = 5.0
# Deliveries after which a message that a bug fails on becomes a dead message.
_MOST_FAILURES = 10
# The pause after an interruption by NATS.
_INTERRUPTED_S = 1.0
# Well within ACK_WAIT_S, so that no other consumer gets a message that is slow to handle.
PROGRESS_S = ACK_WAIT_S / 4
_MOST_HEADER = 4096

Handler = Callable[[str, bytes], Awaitable[None]]


class Consumer:
    """A duty that passes the messages of some subjects to `handle(subject, body)`.

    `handle` returns when the message's effect is committed. It raises `InvalidRequest` for a
    message that cannot be understood: its sender gets `request.rejected`, where it can be known,
    and the message goes to the dead stream, whole; and
    `Unavailable` for one that cannot be handled now, which is delivered again. A message whose
    handling is cancelled at the end of the grace is delivered again at once.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        durable: str,
        filters: list[str],
        handle: Handler,
        rejections: Rejections,
        health: Health,
    ) -> None:
        self.name = f"{durable} consumer"
        self._bus = bus
        self._durable = durable
        self._filters = filters
        self.handle = handle
        self._rejections = rejections
        self._health = health

    async def run(self, stop: asyncio.Event) -> None:
        await run_until(stop, self._turn)

    async def _turn(self, stop: asyncio.Event) -> float:
        try:
            await self._consume(stop)
        except Unavailable as error:
            if self._bus.connected.is_set():
                log.warning("consumer_interrupted", durable=self._durable, detail=error.detail)
        return _INTERRUPTED_S

    async def _consume(self, stop: asyncio.Event) -> None:
        """Handle messages until the stop, or until one cannot be acknowledged.

        Raises:
            Unavailable: NATS is away; the messages in hand were handled first.
        """
        working: set[asyncio.Task[None]] = set()
        async with self._bus.consumer(self._durable, self._filters) as (subscription, durable):
            try:
                while not stop.is_set():
                    await durable.keep()
                    if len(working) >= _PLACES:
                        await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                    _settled(working)
                    if (message := await _fetched(subscription)) is not None:
                        working.add(asyncio.create_task(self._handle_one(message)))
            except asyncio.CancelledError:
                for task in working:
                    task.cancel("stopping")
                raise
            finally:
                # Cancelled here, it cancels them too, and waits until they are returned.
                await asyncio.gather(*working, return_exceptions=True)

    async def _handle_one(self, message: Msg) -> None:
        with translated():
            if _is_stripped(message) and message.metadata.num_delivered < _MOST_FAILURES:
                await message.nak(delay=AGAIN_S)
                return
            try:
                reached("consumer.received")
                async with _in_progress(message):
                    await self.handle(message.subject, message.data)
            except InvalidRequest as error:
                await self._reject(message, str(error))
            except Unavailable as error:
                self._health.failed(error)
                await message.nak(delay=AGAIN_S)
            except Exception as error:
                log.exception("message_failed", subject=message.subject)
                if message.metadata.num_delivered >= _MOST_FAILURES:
                    await self._bury(message, f"failed {_MOST_FAILURES} times: {error!r}")
                else:
                    await message.nak(delay=AGAIN_S)
            except asyncio.CancelledError:
                await message.nak()
                raise
            else:
                reached("consumer.handled")
                await message.ack()
                reached("consumer.acked")

    async def _reject(self, message: Msg, reason: str) -> None:
        """Tell the sender, and bury the message."""
        try:
            await self._rejections.record(
                message.subject, message.data, reason=reason, message_id=_id_of(message)
            )
        except Unavailable as error:
            self._health.down(error.dependency, error.detail)
            await message.nak(delay=AGAIN_S)
        else:
            reached("consumer.rejected")
            await self._bury(message, reason)

    async def _bury(self, message: Msg, reason: str) -> None:
        """Publish the message, whole, to the dead stream with the reason; then acknowledge it."""
        log.warning("message_not_understood", subject=message.subject, reason=reason)
        await self._bus.publish(buried(message, reason, max_bytes=self._bus.max_payload))
        reached("consumer.buried")
        DEAD_MESSAGES.inc()
        await message.ack()


def buried(message: Msg, reason: str, *, max_bytes: int) -> list[Outgoing]:
    """A dead message: the body unchanged; its subject, its headers and the reason as headers.

    With these headers it may be too large for NATS. It then becomes two or more messages, the
    numbered parts of the body.
    """
    headers = {
        "Pezzottify-Subject": message.subject,
        "Pezzottify-Reason": " ".join(reason.split())[:1000].encode("ascii", "replace").decode(),
        "Pezzottify-Headers": json.dumps(dict(message.headers or {}))[:_MOST_HEADER],
    }
    id_ = _id_of(message)
    whole = Outgoing(subject=subjects.DEAD, body=message.data, id=id_, headers=headers)
    if whole.size_bytes <= max_bytes:
        return [whole]
    size = max_bytes // 2
    pieces = [message.data[start : start + size] for start in range(0, len(message.data), size)]
    return [
        Outgoing(
            subject=subjects.DEAD,
            body=piece,
            id=f"{id_}:{number}",
            headers=headers | {"Pezzottify-Part": f"{number}/{len(pieces)}"},
        )
        for number, piece in enumerate(pieces, start=1)
    ]


def _is_stripped(message: Msg) -> bool:
    """Whether NATS has left out the body: until the consumer is set right, see `Durable`."""
    return not message.data and "Nats-Msg-Size" in (message.headers or {})


def _id_of(message: Msg) -> str:
    """The number is unique for the life of the stream, so a redelivery is the same dead message."""
    sequence = message.metadata.sequence.stream
    return f"dead:{message.metadata.timestamp.timestamp()}:{sequence}"


@asynccontextmanager
async def _in_progress(message: Msg) -> AsyncIterator[None]:
    """Keep NATS from redelivering the message while the block runs."""
    reporting = asyncio.create_task(_report_progress(message))
    try:
        yield
    finally:
        reporting.cancel()


async def _report_progress(message: Msg) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        try:
            await message.in_progress()
        except nats.errors.Error as error:
            # The message is then delivered again, and every handler tolerates that.
            log.debug("progress_not_reported", error=str(error))


async def _fetched(subscription: JetStreamContext.PullSubscription) -> Msg | None:
    """The next message, or None when none came for a while."""
    try:
        with translated():
            [message] = await subscription.fetch(1, timeout=_FETCH_S)
    except Unavailable as error:
        # An empty fetch ends in a timeout, which is no fault.
        if isinstance(error.__cause__, TimeoutError | asyncio.TimeoutError):
            return None
        raise
    return message


def _settled(working: set[asyncio.Task[None]]) -> None:
    """Remove the tasks that are done; the error of one is raised."""
    for task in [task for task in working if task.done()]:
        working.discard(task)
        task.result()
