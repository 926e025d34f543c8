"""One session at the catalog server: what is sent, how often, and what counts as an answer.

| what came back                      | meaning                                                   |
|-------------------------------------|-----------------------------------------------------------|
| no connection, time-out, 5xx, 429,  | `DependencyDown`: the same call may be repeated later     |
| "database is locked"                |                                                           |
| 401                                 | one new login; `DependencyDown` while that is too early   |
| 401 at the login                    | `Misconfigured`: user or password                         |
| 403                                 | `Forbidden`: names the permissions that the account lacks |
| 503 "… not enabled"                 | `NotEnabled`: the server has this part switched off       |
| 2xx that is not JSON, 3xx, 404, 405 | `Misconfigured`: that is not the catalog server's API     |

A status in `own` belongs to the call and is returned. A lost answer of a call with an effect is
`DependencyDown`, too: every caller repeats a call only where that is safe, and the upload of a
receipt has its intent in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from shared.clock import Clock
from shared.errors import Dependency, DependencyDown, DownloadsError, Misconfigured
from shared.health import Health
from shared.redaction import redact

Json: TypeAlias = dict[str, Any]
Sleep = Callable[[float], Awaitable[None]]

SERVER: Dependency = "catalog_server"
MAX_BODY_BYTES = 32 * 1024 * 1024
_TIMEOUT_S = 10.0
# httpx limits each read, so a server that drips would never end: a whole call may take twice that.
_LOGIN_S = 30.0
_MAX_CONNECTIONS = 8
_MAX_TEXT_CHARS = 300
# The server takes 10 logins a minute, and one call a second to /v1/admin/.
LOGIN_GAP_S = 7.0
ADMIN_GAP_S = 1.1
# A 429 says `retry-after: 0`, which is not meant.
AFTER_429_S = 5.0
# The text of any status while another program has one of its databases locked.
_LOCKED = "database is locked"
_ADMIN = "/v1/admin/"
_LOGIN = "/v1/auth/login"
_SESSION = "/v1/auth/session"


_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_LOST = (TimeoutError, httpx.HTTPError)


class Forbidden(Misconfigured):
    """The account lacks a permission that this call needs."""

    def __init__(self, user: str, lacks: Collection[str]) -> None:
        names = " and ".join(lacks)
        super().__init__(
            SERVER,
            f"the account {user} lacks {names}: grant it at the catalog server, see docs/bridge.md",
        )
        self.lacks = tuple(lacks)


class NotEnabled(Misconfigured):
    """The server has the part that this call needs switched off."""


class CallRefused(DownloadsError):
    """The server refuses this one call, with its text; others may work."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who the bridge is at the server."""

    user: str
    password: str
    # One for an installation: the server ends the sessions of a user's seventh device.
    device_uuid: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete answer, its body bounded by `MAX_BODY_BYTES`."""

    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        """Its text, to be shown: redacted and short."""
        text = self.body[:64_000].decode("utf-8", "replace")
        return redact(text).strip()[:_MAX_TEXT_CHARS] or "(empty body)"

    def json(self) -> Any:
        """The body, parsed.

        Raises:
            Misconfigured: it is no JSON, so this is not the catalog server.
        """
        # The answer to a login is JSON without a content type.
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            kind = "HTML" if "html" in self.content_type else self.content_type or "no JSON"
            raise _wrong_url(f"answered {self.status} with {kind}") from exc

    def object(self) -> Json:
        """The JSON object that it is.

        Raises:
            Misconfigured: it is none.
        """
        parsed = self.json()
        if not isinstance(parsed, dict):
            raise unreadable("not an object")
        return parsed


class Session:
    """Calls to one catalog server under one account. Safe to share; `close` it once.

    Proxies from the environment are not used, and redirects are not followed: the password goes to
    the host that the setting names.
    """

    def __init__(
        self,
        *,
        base_url: str,
        account: Callable[[], Awaitable[Account]],
        health: Health,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._account = account
        self._health = health
        self._clock = clock
        self._sleep = sleep
        self._http: httpx.AsyncClient | None = None
        self._token: str | None = None
        # The permissions as it told them last.
        self.permissions: frozenset[str] = frozenset()
        self._logging_in = asyncio.Lock()
        self._admin = asyncio.Lock()
        self._last_login: float | None = None
        self._last_admin: float | None = None
        self._not_before = 0.0

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        needs: Collection[str],
        body: object = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        fields: Mapping[str, str] | None = None,
        own: Collection[int] = (),
    ) -> Answer:
        """One call; `needs` are the permissions that it needs, `own` the caller's own statuses.

        Raises:
            DependencyDown, Misconfigured: see the module.
        """
        content: Json = {"json": body} if body is not None else {}
        if files is not None:
            content = {"files": dict(files), "data": dict(fields or {})}
        token = self._token or await self._login(None)
        # It refuses a body without reading it, and the 403 may be lost with the connection.
        if content and not self.permissions.issuperset(needs):
            await self._learn_permissions(token)
            if not self.permissions.issuperset(needs):
                raise await self._forbidden(needs)
        answer = await self._sent(method, path, token, content)
        if answer.status == 401:
            token = await self._login(token)
            answer = await self._sent(method, path, token, content)
        if answer.status == 401:
            raise DependencyDown(SERVER, "refuses the session that it has just given us (401)")
        if answer.status == 403 and 403 not in own:
            raise await self._forbidden(needs)
        checked = _checked(answer, own)
        self._health.up(SERVER)
        return checked

    async def _learn_permissions(self, token: str) -> None:
        """What is granted or taken away counts for old sessions, too."""
        answer = await self._sent("GET", _SESSION, token, {})
        if answer.status == 200:
            self.permissions = _permissions(answer.object())

    async def _forbidden(self, needs: Collection[str]) -> Forbidden:
        lacks = [each for each in needs if each not in self.permissions]
        return Forbidden((await self._account()).user, lacks or needs)

    async def _login(self, refused: str | None) -> str:
        """A token other than `refused`; only one task logs in, and not more often than allowed."""
        async with self._logging_in:
            if self._token is not None and self._token != refused:
                return self._token
            now = self._clock.monotonic()
            if self._last_login is not None and now < self._last_login + LOGIN_GAP_S:
                raise DependencyDown(SERVER, "the session has ended; waits for the next login")
            self._last_login = now
            self._token = None
            account = await self._account()
            answer = await self._sent(
                "POST",
                _LOGIN,
                None,
                {
                    "json": {
                        "user_handle": account.user,
                        "password": account.password,
                        "device_uuid": account.device_uuid,
                        "device_type": "web",
                    }
                },
            )
            if answer.status == 401:
                raise Misconfigured(
                    SERVER,
                    "CATALOG_SERVER_USER or CATALOG_SERVER_PASSWORD is refused (401)",
                )
            said = _checked(answer, ()).object()
            token = said.get("token")
            if not isinstance(token, str) or not token.isascii() or not token.isprintable():
                raise unreadable("a login without a token")
            self.permissions = _permissions(said)
            self._token = token
            return token

    async def _sent(self, method: str, path: str, token: str | None, content: Json) -> Answer:
        if path.startswith(_ADMIN):
            async with self._admin:
                await self._wait_for_admin()
                return await self._send(method, path, token, content)
        return await self._send(method, path, token, content)

    async def _wait_for_admin(self) -> None:
        now = self._clock.monotonic()
        if self._last_admin is not None and now < self._last_admin + ADMIN_GAP_S:
            await self._sleep(self._last_admin + ADMIN_GAP_S - now)
        self._last_admin = self._clock.monotonic()

    async def _send(self, method: str, path: str, token: str | None, content: Json) -> Answer:
        if self._clock.monotonic() < self._not_before:
            raise DependencyDown(SERVER, "has asked for fewer calls (429)")
        try:
            answer = await self._answer(method, path, token, content)
        except _CLOSED as exc:
            # The server closes a connection whose request it refused without reading all of it,
            # and the next call on it finds that out. All calls but an upload may be repeated.
            if "files" in content:
                raise _lost(exc) from exc
            try:
                answer = await self._answer(method, path, token, content)
            except _LOST as again:
                raise _lost(again) from again
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise _wrong_url(f"cannot be used ({exc})") from exc
        except _LOST as exc:
            raise _lost(exc) from exc
        if answer.status == 429:
            self._not_before = self._clock.monotonic() + AFTER_429_S
            raise DependencyDown(SERVER, f"has asked for fewer calls (429: {answer.text[:80]})")
        return answer

    async def _answer(self, method: str, path: str, token: str | None, content: Json) -> Answer:
        # Raw: the server takes no Bearer.
        headers = {} if token is None else {"Authorization": token}
        # A password's hash may take a small machine many seconds.
        patience_s = _LOGIN_S if path == _LOGIN else _TIMEOUT_S
        http = self._client()
        try:
            async with (
                asyncio.timeout(2 * patience_s),
                http.stream(
                    method, self._base + path, headers=headers, timeout=patience_s, **content
                ) as response,
            ):
                return await _read(response)
        finally:
            # It sets a cookie with each login.
            http.cookies.clear()

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            https = self._base.startswith("https")
            self._http = httpx.AsyncClient(
                headers={"Accept-Encoding": "identity", "User-Agent": "pezzottify-downloads"},
                limits=httpx.Limits(max_connections=_MAX_CONNECTIONS),
                verify=ssl.create_default_context() if https else False,
                trust_env=False,
                follow_redirects=False,
            )
        return self._http


def _permissions(said: Json) -> frozenset[str]:
    granted = said.get("permissions")
    return frozenset(map(str, granted if isinstance(granted, list) else ()))


def _lost(exc: Exception) -> DependencyDown:
    detail = redact(f"{type(exc).__name__}: {exc}".rstrip(": "))[:_MAX_TEXT_CHARS]
    return DependencyDown(SERVER, f"no answer from CATALOG_SERVER_URL ({detail})")


async def _read(response: httpx.Response) -> Answer:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise Misconfigured(SERVER, f"answered more than {MAX_BODY_BYTES} bytes")
    return Answer(
        status=response.status_code,
        content_type=response.headers.get("content-type", "").lower()[:100],
        body=bytes(content),
    )


def _checked(answer: Answer, own: Collection[int]) -> Answer:
    status = answer.status
    if status >= 400 and _LOCKED in answer.text:
        raise DependencyDown(SERVER, f"answered {status}: {answer.text}")
    if status in own or 200 <= status < 300:
        return answer
    if status == 503 and "not enabled" in answer.text:
        raise NotEnabled(SERVER, f"answered 503: {answer.text}")
    if status >= 500 or status == 408:
        raise DependencyDown(SERVER, f"answered {status}: {answer.text}")
    if status in (400, 409, 413, 415, 422):
        raise unreadable(f"it refuses a call of ours with {status}: {answer.text}")
    raise _wrong_url(f"answered {status} ({answer.text[:80]})")


def unreadable(what: str) -> Misconfigured:
    """The error for an API of another shape."""
    return Misconfigured(SERVER, f"speaks another version of its API ({what})")


def _wrong_url(what: str) -> Misconfigured:
    return Misconfigured(
        SERVER,
        f"{what}: is CATALOG_SERVER_URL the catalog server's address, e.g."
        " http://pezzottify:3001 ?",
    )
