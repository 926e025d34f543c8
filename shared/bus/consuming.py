"""A durable pull consumer as a duty: every message ends acknowledged, repeated later, or dead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats.errors
import structlog
from nats.aio.msg import Msg

from shared.bus import subjects
from shared.bus.nats import Bus, Outgoing, translated
from shared.errors import Hold, InvalidRequest
from shared.health import Health
from shared.metrics import DEAD_MESSAGES
from shared.runtime import first_of

log = structlog.get_logger()

_BATCH = 20
_FETCH_S = 5.0
_AGAIN_S = 5.0
# A message that a bug of ours fails on is repeated so often before it is put aside.
_MOST_FAILURES = 10
# Well within the consumer's ack_wait, so that slow work is not given to somebody else as well.
_PROGRESS_S = 10.0
_MOST_HEADER = 4096

Handler = Callable[[str, bytes], Awaitable[None]]


class Consumer:
    """Feeds the messages of some subjects to `handle(subject, body)`.

    `handle` returns when the message's effect is committed. It raises `InvalidRequest` for a
    message that cannot be understood, which then goes to the dead stream, whole; and `Hold` for
    one that cannot be handled now, which is delivered again.
    """

    def __init__(
        self, *, bus: Bus, durable: str, filters: list[str], handle: Handler, health: Health
    ) -> None:
        self.name = f"{durable} consumer"
        self._bus = bus
        self._durable = durable
        self._filters = filters
        self._handle = handle
        self._health = health

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._consume(stop)
            except Hold as held:
                if self._bus.connected.is_set():
                    log.warning("consumer_interrupted", durable=self._durable, detail=held.detail)
                await first_of(stop, timeout_s=1.0)

    async def _consume(self, stop: asyncio.Event) -> None:
        async with self._bus.consumer(self._durable, self._filters) as subscription:
            while not stop.is_set():
                fetching = asyncio.create_task(subscription.fetch(_BATCH, timeout=_FETCH_S))
                stopping = asyncio.create_task(stop.wait())
                try:
                    await asyncio.wait([fetching, stopping], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stopping.cancel()
                    if not fetching.done():
                        # Messages that come in at this moment are delivered again.
                        fetching.cancel()
                        await asyncio.wait([fetching])
                if fetching.cancelled():
                    return
                await self._handle_all(_messages(fetching))

    async def _handle_all(self, messages: list[Msg]) -> None:
        # Side by side, so that one slow album does not hold up nineteen tracks; and all of them to
        # their end, whatever becomes of one.
        results = await asyncio.gather(
            *(self._handle_one(message) for message in messages), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _handle_one(self, message: Msg) -> None:
        with translated():
            try:
                async with _in_progress(message):
                    await self._handle(message.subject, message.data)
            except InvalidRequest as error:
                await self._bury(message, str(error))
            except Hold as held:
                self._health.down(held.dependency, held.detail)
                await message.nak(delay=_AGAIN_S)
            except Exception as error:
                log.exception("message_failed", subject=message.subject)
                if message.metadata.num_delivered >= _MOST_FAILURES:
                    await self._bury(message, f"failed {_MOST_FAILURES} times: {error!r}")
                else:
                    await message.nak(delay=_AGAIN_S)
            else:
                await message.ack()

    async def _bury(self, message: Msg, reason: str) -> None:
        """Keep the message, whole, with the reason; only then acknowledge it."""
        log.warning("message_not_understood", subject=message.subject, reason=reason)
        await self._bus.publish(buried(message, reason, max_bytes=self._bus.max_payload))
        DEAD_MESSAGES.inc()
        await message.ack()


def buried(message: Msg, reason: str, *, max_bytes: int) -> list[Outgoing]:
    """A dead message: the body as it came, where it came from and why in the headers.

    What came may be too large for NATS with what we add; it is then kept in two or more parts,
    to be put together in their order.
    """
    headers = {
        "Pezzottify-Subject": message.subject,
        "Pezzottify-Reason": " ".join(reason.split())[:1000].encode("ascii", "replace").decode(),
        "Pezzottify-Headers": json.dumps(dict(message.headers or {}))[:_MOST_HEADER],
    }
    # One life of the stream numbers its messages once; redelivered, it is still one dead message.
    sequence = message.metadata.sequence.stream
    id_ = f"dead:{message.metadata.timestamp.timestamp()}:{sequence}"
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


@asynccontextmanager
async def _in_progress(message: Msg) -> AsyncIterator[None]:
    """Keep the message ours while the block runs."""
    telling = asyncio.create_task(_tell_progress(message))
    try:
        yield
    finally:
        telling.cancel()


async def _tell_progress(message: Msg) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        try:
            await message.in_progress()
        except nats.errors.Error as error:
            # It is delivered again then, and every handler takes a message twice.
            log.debug("progress_not_told", error=str(error))


def _messages(fetching: asyncio.Task[list[Msg]]) -> list[Msg]:
    try:
        with translated():
            return fetching.result()
    except Hold as held:
        # An empty fetch ends in a timeout, which is no fault.
        if isinstance(held.__cause__, TimeoutError | asyncio.TimeoutError):
            return []
        raise
