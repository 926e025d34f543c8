"""Access of a service to NATS: passwords, permissions, TLS. A real server each time."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from shared.bus.nats import Bus, Outgoing
from shared.bus.subjects import DEAD, EVENT
from shared.clock import SystemClock
from shared.errors import DependencyDown
from shared.health import Condition, Health
from tests.support.shipped_nats import USERS, ShippedNats, refusal_of
from tests.support.world import eventually

SECRET = "5ec4e7" * 8


@dataclass
class Entering:
    """A bus that connects, and the log lines of that."""

    bus: Bus
    health: Health
    lines: list[EventDict]

    async def until_refused(self, part: str) -> Condition:
        """The condition of NATS, when it is an alarm with this text."""

        async def condition() -> Condition | None:
            return self.health.conditions().get("nats")

        found = await eventually(
            condition, lambda c: c is not None and c.alarm == "configuration" and part in c.detail
        )
        assert found is not None
        return found

    async def until_in(self) -> None:
        """Wait for the connection."""
        async with asyncio.timeout(20):
            await self.bus.connected.wait()
        assert self.health.conditions()["nats"].ok

    def alarms(self) -> int:
        """How often an alarm was logged."""
        return len(
            [line for line in self.logged("dependency_down") if line["log_level"] == "error"]
        )

    def logged(self, event: str) -> list[EventDict]:
        """The log lines of an event."""
        return [line for line in self.lines if line["event"] == event]


@asynccontextmanager
async def entering(url: str, ca_file: Path | None = None) -> AsyncIterator[Entering]:
    """A bus that tries to connect, until the block ends. No password is ever logged or shown."""
    health = Health(SystemClock())
    bus = Bus(url, name="test", health=health, ca_file=ca_file)
    stop = asyncio.Event()
    with capture_logs() as lines:
        task = asyncio.create_task(bus.run(stop))
        try:
            yield Entering(bus, health, lines)
            shown = json.dumps([lines, str(health.conditions())], default=repr)
            assert SECRET not in shown
        finally:
            stop.set()
            await task


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ShippedNats]:
    """The shipped server; the password of every user is the secret."""
    made = ShippedNats(tmp_path / "nats", passwords=dict.fromkeys(USERS, SECRET))
    await made.start()
    yield made
    await made.stop()


def event(number: int) -> list[Outgoing]:
    """An event to be published."""
    return [Outgoing(subject=f"{EVENT}.x", body=b"{}", id=str(number))]


async def test_a_wrong_password_is_an_alarm_until_the_server_takes_it(server: ShippedNats) -> None:
    """It names NATS_URL, is logged once for any number of tries, and ends with a reload of the
    server; a reload with another password ends the connection, and raises the alarm again."""
    url = server.url_of("ticketer")
    server.passwords["ticketer"] = "another"
    server.write_passwords()
    server.reload()
    await eventually(lambda: refusal_of(url))
    async with entering(url) as service:
        condition = await service.until_refused("NATS_URL")
        assert "password" in condition.detail
        await eventually(lambda: _attempts(server), lambda tries: tries >= 3)
        assert service.alarms() == 1
        server.passwords["ticketer"] = SECRET
        server.write_passwords()
        server.reload()
        await service.until_in()
        server.passwords["ticketer"] = "a third"
        server.write_passwords()
        server.reload()
        await service.until_refused("NATS_URL")
        assert not service.bus.connected.is_set()


async def _attempts(server: ShippedNats) -> int:
    return server.log.read_text().count("authentication error")


async def test_a_url_without_a_user_is_an_alarm(server: ShippedNats) -> None:
    """An old NATS_URL with a server that requires users."""
    async with entering(f"nats://127.0.0.1:{server.port}") as service:
        await service.until_refused("NATS_URL")


async def test_one_server_refuses_and_another_is_away(server: ShippedNats) -> None:
    """In turn: the alarm stays, and is logged once."""
    with socket.socket() as closed:
        # Bound but not listening: it refuses, and no other test gets this port meanwhile.
        closed.bind(("127.0.0.1", 0))
        await _refused_in_turn(server, closed.getsockname()[1])


async def _refused_in_turn(server: ShippedNats, gone: int) -> None:
    wrong = "nats://ticketer:wrong@127.0.0.1"
    async with entering(f"{wrong}:{server.port},{wrong}:{gone}") as service:
        await service.until_refused("NATS_URL")
        tries = await _attempts(server)
        await eventually(lambda: _attempts(server), lambda count: count >= tries + 2)
        await service.until_refused("NATS_URL")
        assert service.alarms() == 1
        assert len(service.logged("dependency_down")) <= 2


async def test_what_the_server_forbids_is_logged_once_and_fails_in_time(
    server: ShippedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error line with the subject; the caller gets a timeout; a reload with the permission is
    enough, and NATS is ok again with the next event."""
    monkeypatch.setattr("shared.bus.nats.PUBLISH_TIMEOUT_S", 0.5)
    dead = [Outgoing(subject=DEAD, body=b"x", id="1")]
    async with entering(server.url_of("ticketer")) as service:
        await service.until_in()
        for _ in range(2):
            with pytest.raises(DependencyDown, match="timeout") as raised:
                await service.bus.publish(dead)
            await service.bus.wake("ticket")
        service.health.failed(raised.value)
        assert not service.health.conditions()["nats"].ok
        await eventually(lambda: _accepted(service.bus, event(1)))
        assert service.health.conditions()["nats"].ok
        wanted = {
            'publish to "pezzottify.download.dead"',
            'publish to "pezzottify.download.work.ticket"',
        }
        found = await eventually(lambda: _forbidden(service), lambda lines: len(lines) >= 2)
        assert sorted(line["what"] for line in found) == sorted(wanted)
        assert {line["log_level"] for line in found} == {"error"}
        server.edit('"pezzottify.download.work.poll"', '"pezzottify.download.dead"')
        server.reload()
        await eventually(lambda: _accepted(service.bus, dead))


async def _forbidden(service: Entering) -> list[EventDict]:
    return service.logged("nats_forbids")


async def _accepted(bus: Bus, messages: list[Outgoing]) -> bool:
    try:
        await bus.publish(messages)
    except DependencyDown:
        return False
    return True


@asynccontextmanager
async def with_tls(tmp_path: Path, *hosts: str) -> AsyncIterator[tuple[ShippedNats, Path]]:
    """The shipped server with TLS and a certificate for these hosts; the CA of it."""
    passwords = dict.fromkeys(USERS, SECRET)
    made = ShippedNats(tmp_path / "nats", config="nats-server-tls.conf", passwords=passwords)
    signer = made.certify(*hosts)
    await made.start()
    try:
        yield made, signer
    finally:
        await made.stop()


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_in_over_tls(tmp_path: Path, scheme: str) -> None:
    """With `tls://`, and with `nats://` because the server asks for it; also after a restart."""
    async with with_tls(tmp_path, "localhost") as (server, signer):
        url = server.url_of("reaper", scheme=scheme, host="localhost")
        async with entering(url, signer) as service:
            await service.until_in()
            await service.bus.publish(event(1))
            await server.kill()
            await eventually(lambda: _is_out(service))
            await server.start()
            await service.until_in()
            await service.bus.publish(event(2))


async def _is_out(service: Entering) -> bool:
    return not service.bus.connected.is_set()


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_server_with_an_unknown_ca_does_not_get_the_password(
    tmp_path: Path, scheme: str
) -> None:
    """An alarm that names the setting."""
    async with with_tls(tmp_path, "localhost") as (server, _):
        url = server.url_of("reaper", scheme=scheme, host="localhost")
        async with entering(url) as service:
            await service.until_refused("NATS_CA_FILE")
            assert service.alarms() == 1


async def test_a_certificate_of_another_host_is_not_accepted(tmp_path: Path) -> None:
    """The name in NATS_URL is checked."""
    async with with_tls(tmp_path, "elsewhere.example") as (server, signer):
        url = server.url_of("reaper", scheme="tls", host="localhost")
        async with entering(url, signer) as service:
            condition = await service.until_refused("NATS_URL")
            assert "localhost" in condition.detail


async def test_tls_to_a_server_without_it_sends_nothing_unencrypted() -> None:
    """A server that offers no TLS gets not one byte; an alarm shows what to do."""
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"version": "2.15.1", "headers": True, "max_payload": 1024, "auth_required": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        heard.extend(await reader.read())
        writer.close()
        await writer.wait_closed()

    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    async with plain, entering(f"tls://reaper:{SECRET}@127.0.0.1:{port}") as service:
        condition = await service.until_refused("tls://")
        assert "nats://" in condition.detail
        assert service.alarms() == 1
    assert bytes(heard) == b""


async def test_in_the_clear_to_the_server_without_tls_only(server: ShippedNats) -> None:
    """`tls://` to the real server without TLS: an alarm; `nats://`: in."""
    async with entering(server.url_of("reaper", scheme="tls")) as service:
        await service.until_refused("tls://")
    async with entering(server.url_of("reaper")) as service:
        await service.until_in()


async def test_certificates_that_went_away_are_waited_for(tmp_path: Path) -> None:
    """The file is read at each connection: without it there is an alarm, until it is back."""
    async with with_tls(tmp_path, "localhost") as (server, signer):
        kept = signer.read_text()
        signer.unlink()
        async with entering(server.url_of("reaper", host="localhost"), signer) as service:
            await service.until_refused("NATS_CA_FILE")
            signer.write_text(kept)
            await service.until_in()
