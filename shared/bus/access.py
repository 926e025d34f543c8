"""Access to NATS: user and password, TLS, and the permissions of the user."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Coroutine, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import SecureConnWantedError

from shared.errors import DependencyDown, Misconfigured, Unavailable


class StrictClient(Client):
    """nats-py's client; with a `tls://` URL it sends nothing unencrypted.

    nats-py by itself does what the server asks, and would send the password to a server that asks
    for no TLS. With a `nats://` URL it uses TLS where the server asks for it.
    """

    def _connect_command(self) -> bytes:
        server = self._current_server
        if server and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise SecureConnWantedError
        return super()._connect_command()


async def to_the_end(closing: Coroutine[None, None, object]) -> None:
    """Await a `close()` or `drain()` of nats-py.

    It ends its own attempt to reconnect, and if that waits for the end of the socket, nats-py then
    raises CancelledError in the caller, whom nobody has cancelled.
    """
    try:
        await closing
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


def inbox_prefix(urls: Sequence[str]) -> str:
    """The prefix of the subjects for answers: the user's own, so that no other user reads them.

    What a URL without a password names may be a token, which is a secret.
    """
    user = urlsplit(urls[0])
    if user.password is None or not re.fullmatch(r"[\w-]+", user.username or "", re.ASCII):
        return "_INBOX"
    return f"_INBOX_{user.username}"


def tls_context(ca_file: Path | None) -> ssl.SSLContext | None:
    """Trust in the CAs of the file; None: in those of the system.

    Raises:
        Misconfigured: the file, valid at the start, is gone or has no certificates any more.
    """
    try:
        return None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Misconfigured(
            "nats", f"NATS_CA_FILE: {ca_file} cannot be used any more ({error.strerror})"
        ) from error


def unavailable(error: BaseException) -> Unavailable:
    """The error for a failed connection; `Misconfigured` if an operator has to change something."""
    text = words(error)
    if "authorization" in text.lower():
        return Misconfigured("nats", "the server refuses the user or the password of NATS_URL")
    if isinstance(error, SecureConnWantedError):
        return Misconfigured(
            "nats",
            "NATS_URL says tls://, but the server does not ask for TLS, so nothing was sent to it:"
            " set up TLS there, or say nats:// where the network can be trusted",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misconfigured(
            "nats",
            f"the server's certificate is not accepted ({error.verify_message}): it must be for"
            " the host in NATS_URL, and signed by one of NATS_CA_FILE",
        )
    return DependencyDown("nats", text)


def forbidden(error: Exception) -> str | None:
    """What this user may not do, e.g. `publish to "a.b"`; None for other errors."""
    found = re.search(r"permissions violation for (.+)", str(error), re.IGNORECASE)
    return found.group(1) if found else None


def words(error: BaseException) -> str:
    """The error as text; the library's own texts have no URL and no password."""
    return str(error) or type(error).__name__
