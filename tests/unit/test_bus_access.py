"""Access to NATS: the user of a URL, and missing permissions."""

from __future__ import annotations

import asyncio

import pytest

from shared.bus.access import forbidden, inbox_prefix, to_the_end


@pytest.mark.parametrize(
    ("urls", "prefix"),
    [
        (["nats://ingest:0a1b@nats:4222"], "_INBOX_ingest"),
        (["tls://fetcher_writer:0a1b@nats", "tls://fetcher_writer:0a1b@other"],
         "_INBOX_fetcher_writer"),
        (["nats://nats:4222"], "_INBOX"),
        (["nats://s3cret-token@nats:4222"], "_INBOX"),
        (["nats://:pw@nats"], "_INBOX"),
        (["nats://a.b:pw@nats"], "_INBOX"),
        (["nats://a%3E:pw@nats"], "_INBOX"),
        (["nats://*:pw@nats"], "_INBOX"),
    ],
)  # fmt: skip
def test_answers_have_a_place_of_their_own(urls: list[str], prefix: str) -> None:
    """By the user's name, if that can stand in a subject; a token is a secret, and no name."""
    assert inbox_prefix(urls) == prefix


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('nats: permissions violation for publish to "a.b"', 'publish to "a.b"'),
        ('nats: Permissions Violation for Subscription to "a"', 'Subscription to "a"'),
        ("nats: timeout", None),
    ],
)
def test_what_the_server_forbids_is_named(text: str, what: str | None) -> None:
    """The subject stands in the log."""
    assert forbidden(RuntimeError(text)) == what


class _Closing:
    """A connection that waits for the end of its socket, as nats-py does while it reconnects."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reconnecting = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        await self.ended

    async def close(self) -> None:
        self.reconnecting.cancel()
        await asyncio.sleep(0)
        await self.ended


async def test_an_attempt_to_reconnect_that_is_ended_cancels_nobody_else() -> None:
    connection = _Closing()
    await asyncio.sleep(0)
    await to_the_end(connection.close())
    assert connection.reconnecting.cancelled()


async def test_who_is_cancelled_while_closing_ends() -> None:
    waiting = asyncio.create_task(to_the_end(asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
