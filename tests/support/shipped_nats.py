"""The NATS server of the compose file: with the config that is shipped, its users and passwords."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from nats import errors
from nats.aio.client import Client

from services.local.servers import Nats
from shared.settings import EVERY_SERVICE

SHIPPED = Path(__file__).parents[2] / "deploy/nats"
USERS = (*EVERY_SERVICE, "catalog", "operator")
# Each of them would be something else than a text, were it not between quotes.
ODD = (
    "0123456789",
    "1e5",
    "10k",
    "0",
    "123456789012345678901234567890",
    "0x1f",
    "007",
    "true",
    "1.5",
)
PASSWORDS = dict(zip(USERS, ODD, strict=True))


class ShippedNats(Nats):
    """That server; its folders and its ports are the test's."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "nats-server.conf",
        passwords: Mapping[str, str] = PASSWORDS,
    ) -> None:
        super().__init__(folder)
        self.passwords = dict(passwords)
        self._config = config
        folder.mkdir(parents=True)
        for shipped in SHIPPED.glob("*.conf"):
            text = shipped.read_text(encoding="utf-8")
            assert text.count('"/data"') == (shipped.name == "nats-server.conf")
            text = text.replace('"/data"', f'"{folder / "js"}"').replace("/etc/nats/", f"{folder}/")
            (folder / shipped.name).write_text(text, encoding="utf-8")
        self.write_passwords()

    def _own_arguments(self) -> tuple[str, ...]:
        # And a free port for the monitoring, which all tests would share.
        return "-c", str(self.folder / self._config), "-m", "-1"

    @property
    def url(self) -> str:
        """The operator's: for who looks at everything."""
        return self.url_of("operator")

    def url_of(self, user: str, *, scheme: str = "nats", host: str = "127.0.0.1") -> str:
        """The NATS_URL of a user."""
        return f"{scheme}://{user}:{self.passwords[user]}@{host}:{self.port}"

    def write_passwords(self) -> None:
        """Write the file that is a secret in the compose file."""
        lines = [f'{user.upper()}_PASSWORD: "{text}"\n' for user, text in self.passwords.items()]
        (self.folder / "passwords.conf").write_text("".join(lines), encoding="ascii")

    def edit(self, old: str, new: str) -> None:
        """Change the test's copy of the config."""
        path = self.folder / "nats-server.conf"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def reload(self) -> None:
        """Let the server read its config again, as `docker compose kill -s HUP nats` does."""
        os.kill(self.pid, signal.SIGHUP)

    def violations(self) -> list[str]:
        """What the server has refused, by its log."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "iolation" in line]

    def certify(self, *hosts: str) -> Path:
        """Make the server a certificate for these hosts; returns the file of who signed it."""
        signer = trustme.CA()
        leaf = signer.issue_cert(*hosts)
        folder = self.folder / "tls"
        folder.mkdir(exist_ok=True)
        leaf.private_key_pem.write_to_path(folder / "server.key")
        leaf.cert_chain_pems[0].write_to_path(folder / "server.crt")
        signer.cert_pem.write_to_path(self.folder / "ca.pem")
        return self.folder / "ca.pem"


@dataclass
class Visitor:
    """An ordinary client, with what the server said to it."""

    client: Client
    refusals: list[str] = field(default_factory=list)

    async def judged(self) -> None:
        """Wait until the server has taken or refused all that was sent."""
        # nats-py sends a PING before what it has yet to send; the second is behind that.
        for _ in range(2):
            await self.client.flush()

    async def refused(self) -> list[str]:
        """What was refused since the last look."""
        await self.judged()
        found = list(self.refusals)
        self.refusals.clear()
        return found


@asynccontextmanager
async def visitor(url: str, *, inbox_prefix: str = "_INBOX") -> AsyncIterator[Visitor]:
    """Connect as another program does, which knows nothing of our `Bus`."""
    made = Visitor(Client())

    async def on_error(error: Exception) -> None:
        made.refusals.append(str(error))

    await made.client.connect(
        url, error_cb=on_error, inbox_prefix=inbox_prefix, allow_reconnect=False
    )
    try:
        yield made
    finally:
        await made.client.close()


async def refusal_of(url: str) -> str | None:
    """Why a connection is refused; None when it is not."""
    while True:
        client = Client()
        try:
            await client.connect(url, error_cb=_silent, allow_reconnect=False)
        except errors.Error as error:
            return str(error)
        except OSError:
            continue  # the server hung up before its reason was read
        else:
            return None
        finally:
            await client.close()


async def _silent(_: Exception) -> None:
    pass
