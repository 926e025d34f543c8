"""A durable consumer of the requests stream, kept as this release wants it.

Any user of NATS with the right to it may change, pause or delete a consumer. With another filter
messages would lie in the stream for ever, while nothing seems to be wrong.
"""

from __future__ import annotations

import time

import nats.js.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo

from shared.bus.streams import consumer
from shared.bus.subjects import REQUESTS_STREAM

log = structlog.get_logger()

# How long a change may go unnoticed.
CHECK_S = 10.0
_IMMUTABLE = 10012  # of the server's error for a setting that only a new consumer can have


class Durable:
    """The consumer `name` with its filters; errors are those of nats-py."""

    def __init__(self, js: JetStreamContext, name: str, filters: list[str]) -> None:
        self._js = js
        self._name = name
        self._wanted = consumer(name, filters)
        self._right: ConsumerConfig | None = None
        self._checked = time.monotonic()

    async def make(self) -> None:
        """Make it, or set right what is there under its name."""
        try:
            made = await self._js.add_consumer(REQUESTS_STREAM, self._wanted)
        except nats.js.errors.APIError as error:
            if error.err_code != _IMMUTABLE:
                raise
            # Messages without an acknowledgement stay in the stream.
            await self._js.delete_consumer(REQUESTS_STREAM, self._name)
            made = await self._js.add_consumer(REQUESTS_STREAM, self._wanted)
        if made.paused:
            await self._js.resume_consumer(REQUESTS_STREAM, self._name)
        self._right = _settings(made)

    async def keep(self) -> None:
        """From time to time, see whether it was changed, and set it right."""
        if time.monotonic() - self._checked < CHECK_S:
            return
        self._checked = time.monotonic()
        try:
            found = await self._js.consumer_info(REQUESTS_STREAM, self._name)
        except nats.js.errors.NotFoundError:
            changed = "deleted"
        else:
            changed = "paused" if found.paused else self._difference(found)
        if changed:
            log.warning("consumer_set_right", durable=self._name, changed=changed)
            await self.make()

    def _difference(self, found: ConsumerInfo) -> str:
        assert self._right is not None, "it was made"
        there, right = vars(_settings(found)), vars(self._right)
        return ", ".join(
            f"{name}={there[name]}" for name in sorted(right) if there[name] != right[name]
        )


def _settings(info: ConsumerInfo) -> ConsumerConfig:
    """Its settings without what the server notes beside them."""
    assert info.config is not None
    return info.config.evolve(metadata=None, pause_until=None)
