"""One HTTP connection pool to Torrentino: what is sent, how often, and what counts as an answer."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import quote

import httpx

from shared.backoff import Backoff
from shared.errors import InvalidRequest, Misconfigured, OutcomeUnknown
from shared.redaction import redact
from shared.torrentino.answers import (
    MAX_BODY_BYTES,
    Answer,
    TooLarge,
    lost,
    refused,
    unreadable,
)

Sleep = Callable[[float], Awaitable[None]]

_GET_RETRIES = 3
_GET_PAUSES = Backoff(first_s=0.1, longest_s=0.4)
_MAX_CONNECTIONS = 20
_MAX_TYPE_CHARS = 100
# What Torrentino answers when one of its three SQLite connections had to wait too long.
_LOCKED = "database is locked"
_TIMED_OUT = (TimeoutError, httpx.TimeoutException)
_LOST = (TimeoutError, httpx.HTTPError, httpx.InvalidURL)


def base_url_of(base_url: str) -> httpx.URL:
    """`base_url` parsed, without a trailing slash.

    Raises:
        Misconfigured: it is not an absolute http or https URL.
    """
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL as exc:
        raise Misconfigured("torrentino", f"TORRENTINO_URL is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise Misconfigured(
            "torrentino", "TORRENTINO_URL must be like http://torrentino:8080/api/v1"
        )
    return url


def auth_headers(api_key: str | None) -> dict[str, str]:
    """The header that carries the key; none without a key.

    Raises:
        Misconfigured: the key cannot stand in a header.
    """
    if api_key is None:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or api_key != api_key.strip():
        raise Misconfigured(
            "torrentino", "TORRENTINO_API_KEY must be printable ASCII without spaces around it"
        )
    return {"Authorization": f"Bearer {api_key}"}


class Http:
    """Requests to one server. Safe to share between tasks; `close` it once.

    Proxies from the environment are not used, and redirects are not followed: the key goes to
    the host that the setting names and to no other.

    Raises:
        Misconfigured: `base_url` or `api_key` can never work.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        timeout_s: float = 10,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        url = base_url_of(base_url)
        self._base = str(url)
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 jitter is no secret
        # httpx limits each read, so a server that drips would never end; this limits the whole.
        self._deadline_s = 2 * timeout_s
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            headers={"Accept": "application/json", "Accept-Encoding": "identity"}
            | {"User-Agent": "pezzottify-downloads"}
            | auth_headers(api_key),
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS),
            transport=transport,
            verify=ssl.create_default_context() if url.scheme == "https" else False,
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def read(
        self, path: str, *, own: Collection[int] = (), patience_s: float | None = None
    ) -> Answer:
        """GET, again after what passes by itself; never again after a time-out, which is long.

        `patience_s`: how long the answer may take, where that is longer than usual.
        """
        for retry in range(_GET_RETRIES):
            try:
                answer = await self._send("GET", path, None, patience_s)
            except _TIMED_OUT as exc:
                raise lost(exc, effect=False) from exc
            except httpx.TransportError:
                pass
            else:
                if answer.status != 500 or _LOCKED not in answer.text:
                    return _checked(answer, own, effect=False)
            await self._sleep(_GET_PAUSES.pause_s(retry, self._rng))
        try:
            answer = await self._send("GET", path, None, patience_s)
            return _checked(answer, own, effect=False)
        except _LOST as exc:
            raise lost(exc, effect=False) from exc

    async def effect(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None,
        own: Collection[int],
        patience_s: float | None = None,
    ) -> Answer:
        """POST or DELETE, once. A cancelled call may have had its effect like any lost one."""
        try:
            answer = await self._send(method, path, body, patience_s)
        except _LOST as exc:
            raise lost(exc, effect=True) from exc
        except TooLarge as exc:
            raise OutcomeUnknown(str(exc), settled=True) from exc
        return _checked(answer, own, effect=True)

    async def _send(
        self, method: str, path: str, body: bytes | None, patience_s: float | None
    ) -> Answer:
        # Without a body no content type may be sent, or Torrentino rejects the empty JSON.
        headers = {} if body is None else {"Content-Type": "application/json"}
        url = self._base + path
        limits = httpx.Timeout(self._timeout_s, read=patience_s or self._timeout_s)
        async with (
            asyncio.timeout(patience_s or self._deadline_s),
            self._http.stream(
                method, url, content=body, headers=headers, timeout=limits
            ) as response,
        ):
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MAX_BODY_BYTES:
                    raise TooLarge("torrentino", f"answered more than {MAX_BODY_BYTES} bytes")
            return Answer(
                status=response.status_code,
                content_type=redact(response.headers.get("content-type", ""))[:_MAX_TYPE_CHARS],
                body=bytes(content),
            )


def quoted(value: str) -> str:
    """`value` as one segment of a path; "." and ".." would be resolved away, so they are none."""
    if value in ("", ".", ".."):
        raise InvalidRequest(f"{value!r} is not the id of a ticket")
    return quote(value, safe="")


def _checked(answer: Answer, own: Collection[int], *, effect: bool) -> Answer:
    if answer.status in own or 200 <= answer.status < 300:
        return answer
    raise refused(answer, effect=effect)


def object_of(answer: Answer, *, effect: bool) -> Mapping[str, object]:
    """The JSON object that a success says.

    Raises:
        Misconfigured | OutcomeUnknown: it is none; see `answers`.
    """
    try:
        parsed = answer.json()
        if not isinstance(parsed, dict):
            raise ValueError("not an object")  # noqa: TRY004 it is the answer's fault
    except ValueError as exc:
        raise unreadable(answer, exc, effect=effect) from exc
    return parsed


def require_not_found(answer: Answer, *, effect: bool) -> None:
    """Pass for Torrentino's own "not found"; a stranger's 404 is a wrong URL, and no news."""
    if answer.error is None:
        raise refused(answer, effect=effect)
