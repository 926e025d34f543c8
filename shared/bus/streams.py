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
from shared.errors import Misconfigured

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


# In a stream's metadata: whose messages it has.
OWNER = "pezzottify_installation"


async def ensure_streams(
    js: JetStreamContext,
    *,
    before_events: Callable[[], Awaitable[None]] | None = None,
    installation: str | None = None,
) -> None:
    """Make the streams that are missing. One that differs is reported, never changed.

    `installation`: what is made is its own, and what is another's is refused.

    `before_events` is awaited before the stream of events is made: NATS may have lost that stream,
    its events then have to be published again, and a crash in between must not prevent that.

    Raises:
        Misconfigured: a stream belongs to another installation.
    """
    for wanted in STREAMS:
        assert wanted.name is not None
        try:
            found = (await js.stream_info(wanted.name)).config
        except NotFoundError:
            if wanted.name == subjects.EVENTS_STREAM and before_events is not None:
                await before_events()
            await js.add_stream(_owned(wanted, installation) if installation else wanted)
            continue
        _require_owner(found, installation)
        if (found.retention, found.subjects) != (wanted.retention, wanted.subjects):
            log.warning(
                "stream_differs",
                stream=wanted.name,
                found_subjects=found.subjects,
                found_retention=found.retention,
                wants_subjects=wanted.subjects,
                wants_retention=wanted.retention,
            )


def owner_of(found: StreamConfig) -> str | None:
    """The installation whose stream this is; None: that of an older release."""
    return (found.metadata or {}).get(OWNER)


def _owned(config: StreamConfig, installation: str) -> StreamConfig:
    return config.evolve(metadata={**(config.metadata or {}), OWNER: installation})


def _require_owner(found: StreamConfig, installation: str | None) -> None:
    owner = owner_of(found)
    if installation is not None and owner not in (None, installation):
        raise Misconfigured(
            "nats",
            f"the stream {found.name} belongs to another installation ({owner}; this one is"
            f" {installation}): give each a NATS server or account of its own; or, if the other one"
            " is not used any more, run `pezzottify-downloads nats take-over`",
        )


async def own_streams(js: JetStreamContext, installation: str, *, another_s: bool) -> None:
    """Make the streams this installation's: those of an older release, or `another_s` as well.

    The caller's user needs the right to change them.
    """
    for wanted in STREAMS:
        assert wanted.name is not None
        found = (await js.stream_info(wanted.name)).config
        if owner_of(found) != installation and (another_s or owner_of(found) is None):
            await js.update_stream(_owned(found, installation))
