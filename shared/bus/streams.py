"""The JetStream streams and consumers, declared once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from shared.bus import subjects

log = structlog.get_logger()

_DAY_S = 86_400
_MIB = 1024 * 1024
EVENTS_KEPT_S = 14 * _DAY_S
# Seconds without progress from a consumer after which a message is delivered again: the delay that
# a consumer's death causes.
ACK_WAIT_S = 10.0

# NATS reserves max_bytes when a stream is made, so all of them together must fit a small disk.
# Within the duplicate window NATS drops a message whose id it knows.
STREAMS = (
    StreamConfig(
        name=subjects.REQUESTS_STREAM,
        subjects=[f"{subjects.PREFIX}.request.*", f"{subjects.PREFIX}.command.*"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        # A full stream refuses new requests instead of dropping the oldest one.
        discard=DiscardPolicy.NEW,
        max_bytes=64 * _MIB,
        max_msg_size=4 * _MIB,
        # The least that NATS allows. The database finds repetitions, by their request id; here a
        # cancellation, which has the id of its request, would be dropped as one.
        duplicate_window=0.1,
    ),
    StreamConfig(
        name=subjects.EVENTS_STREAM,
        subjects=[f"{subjects.EVENT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=EVENTS_KEPT_S,
        max_bytes=256 * _MIB,
        duplicate_window=60 * 60,
    ),
    StreamConfig(
        name=subjects.DEAD_STREAM,
        subjects=[subjects.DEAD],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=90 * _DAY_S,
        max_bytes=64 * _MIB,
        duplicate_window=60 * 60,
    ),
)


def consumer(durable: str, filters: list[str]) -> ConsumerConfig:
    """A durable pull consumer of the requests stream."""
    return ConsumerConfig(
        durable_name=durable,
        filter_subjects=filters,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        # No limit: the consumer itself sends a message that keeps failing to the dead stream.
        max_deliver=-1,
        max_ack_pending=1000,
    )


async def ensure_streams(
    js: JetStreamContext, *, before_events: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Make the streams that are missing. One that differs is reported, never changed.

    `before_events` is awaited before the stream of events is made: NATS may have lost that stream,
    its events then have to be published again, and a crash in between must not prevent that.
    """
    for wanted in STREAMS:
        assert wanted.name is not None
        try:
            found = (await js.stream_info(wanted.name)).config
        except NotFoundError:
            if wanted.name == subjects.EVENTS_STREAM and before_events is not None:
                await before_events()
            await js.add_stream(wanted)
            continue
        if (found.retention, found.subjects) != (wanted.retention, wanted.subjects):
            log.warning(
                "stream_differs",
                stream=wanted.name,
                found_subjects=found.subjects,
                found_retention=found.retention,
                wants_subjects=wanted.subjects,
                wants_retention=wanted.retention,
            )
