"""Torrentino's HTTP API. Every failure is one of `shared.errors`; see `answers` for the table."""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from urllib.parse import quote

import httpx

from shared.errors import (
    AttemptFailed,
    Conflict,
    DependencyDown,
    ErrorType,
    InvalidRequest,
    Misconfigured,
    OutcomeUnknown,
)
from shared.torrentino.answers import (
    MAX_BODY_BYTES,
    Answer,
    TooLarge,
    lost,
    refused,
    unreadable,
)
from shared.torrentino.model import RemoteTicket, TicketRequest, redact

Sleep = Callable[[float], Awaitable[None]]
# Named out here because inside the class `list` is the method.
Tickets = list[RemoteTicket]

_GET_RETRIES = 3
_RETRY_BASE_S = 0.1
_MAX_CONNECTIONS = 20
_MAX_TYPE_CHARS = 100
# What Torrentino answers when one of its three SQLite connections had to wait too long.
_LOCKED = "database is locked"
# Not only hexadecimal, but long: "all" would make qBittorrent delete every torrent it has.
_INFO_HASH = re.compile(r"[0-9A-Za-z]{20,64}", re.ASCII)


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


class TorrentinoClient:
    """One server's API. Safe to share between tasks; `close` it once.

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

    # --- tickets

    async def create(self, request: TicketRequest) -> RemoteTicket:
        """Make a ticket. Not idempotent: two calls make two tickets.

        Raises:
            AttemptFailed: Torrentino rejects what we ask for (REJECTED).
            OutcomeUnknown: find it by its `dest_path` before asking again.
        """
        answer = await self._effect(
            "POST", "/tickets", body=request.to_json(), own={400, 413, 415, 422}
        )
        if answer.status >= 400:
            raise AttemptFailed(
                ErrorType.REJECTED,
                f"Torrentino rejects the request ({answer.status}): {answer.text}",
            )
        return _ticket(answer, effect=True)

    async def get(self, ticket_id: str) -> RemoteTicket | None:
        """The ticket as it stands, or None when there is none with this id."""
        answer = await self._read(f"/tickets/{_quoted(ticket_id)}", own={404})
        if answer.status == 404:
            _require_not_found(answer, effect=False)
            return None
        return _ticket(answer, effect=False)

    async def list(
        self, *, state: str | None = None, page_size: int = 1000, max_pages: int = 100
    ) -> AsyncGenerator[RemoteTicket, None]:
        """Every ticket (in `state`), each once, highest priority and then oldest first.

        Tickets move while the pages are read. Those that shift back across a page boundary are
        looked for again as far as the total betrays them; with `state` some may still be missed.
        Pages whose answer is too large are asked for again in halves.

        Raises:
            Misconfigured: there are more than `max_pages` pages: old tickets need deleting.
        """
        seen: set[str] = set()
        offset, limit, total_before = 0, page_size, 0
        for _ in range(max_pages):
            try:
                page, total = await self._page(state=state, limit=limit, offset=offset)
            except TooLarge:
                if limit == 1:
                    raise
                limit //= 2
                continue
            for ticket in page:
                if ticket.id not in seen:
                    seen.add(ticket.id)
                    yield ticket
            gone, total_before = max(0, total_before - total), total
            offset = max(0, offset - gone) if gone else offset + len(page)
            if offset >= total or not (page or gone):
                return
        raise Misconfigured(
            "torrentino", f"has more than {max_pages} pages of tickets: delete old ones there"
        )

    async def find_by_dest_paths(self, dest_paths: Collection[str]) -> dict[str, Tickets]:
        """The tickets with each of these destinations; a destination without any is left out.

        Two tickets may share one: whoever repeated a create without looking made the second.
        One pass over all tickets, because the API has no such filter.
        """
        wanted = frozenset(dest_paths)
        found: dict[str, Tickets] = {}
        if not wanted:
            return found
        async with aclosing(self.list()) as tickets:
            async for ticket in tickets:
                if ticket.dest_path in wanted:
                    found.setdefault(ticket.dest_path, []).append(ticket)
        return found

    async def cancel(self, ticket_id: str, *, reason: str) -> RemoteTicket | None:
        """Cancel the ticket; one that has already ended is returned as it is, None if unknown.

        Not durable while Torrentino searches or downloads: read the ticket again later, and
        remove the torrent (`remove_torrent`) right after this, never before.

        Raises:
            OutcomeUnknown: read it again before cancelling again.
        """
        path, body = f"/tickets/{_quoted(ticket_id)}", json.dumps({"reason": reason}).encode()
        answer = await self._effect("DELETE", path, body=body, own={404, 409})
        if answer.status == 409:
            return await self.get(ticket_id)
        return _ticket_or_none(answer)

    async def approve(self, ticket_id: str, *, candidate_idx: int = 0) -> RemoteTicket | None:
        """Accept a candidate of a ticket that needs approval; None when there is no such ticket.

        Torrentino records the index but tries its candidates in order, beginning with 0.

        Raises:
            Conflict: the ticket does not need approval (any more).
            InvalidRequest: it has no candidate with this index.
        """
        return await self._decide(ticket_id, "approve", {"candidate_idx": candidate_idx})

    async def reject(self, ticket_id: str, *, reason: str) -> RemoteTicket | None:
        """Turn down every candidate; None when there is no such ticket.

        Raises:
            Conflict: the ticket does not need approval (any more).
        """
        return await self._decide(ticket_id, "reject", {"reason": reason})

    async def retry(self, ticket_id: str) -> RemoteTicket | None:
        """Search from scratch, forgetting the candidates; None when there is no such ticket.

        Raises:
            Conflict: the ticket has not ended.
        """
        return await self._decide(ticket_id, "retry", None)

    async def _decide(
        self, ticket_id: str, verb: str, body: Mapping[str, object] | None
    ) -> RemoteTicket | None:
        path = f"/tickets/{_quoted(ticket_id)}/{verb}"
        content = None if body is None else json.dumps(body).encode()
        answer = await self._effect("POST", path, body=content, own={400, 404, 409, 422})
        if answer.status == 409:
            raise Conflict(f"Torrentino: {answer.text}")
        if answer.status in (400, 422):
            raise InvalidRequest(f"Torrentino: {answer.text}")
        return _ticket_or_none(answer)

    # --- the server

    async def remove_torrent(self, info_hash: str, *, delete_files: bool) -> None:
        """Take a torrent out of Torrentino's client; fine when it has none with this hash.

        Raises:
            InvalidRequest: `info_hash` is not the hash of one torrent.
        """
        if not _INFO_HASH.fullmatch(info_hash):
            raise InvalidRequest(f"{info_hash[:80]!r} is not the hash of a torrent")
        path = f"/torrents/{info_hash}?delete_files={'true' if delete_files else 'false'}"
        answer = await self._effect("DELETE", path, body=None, own={404})
        if answer.status == 404:
            _require_not_found(answer, effect=True)
        else:
            _object(answer, effect=True)

    async def health(self) -> None:
        """Return when the API answers; it says nothing about searching or downloading."""
        answer = await self._read("/health")
        status = _object(answer, effect=False).get("status")
        if status != "ok":
            raise DependencyDown("torrentino", f"its health is {redact(str(status))[:80]!r}")

    async def orchestrator(self) -> Mapping[str, object]:
        """Whether tickets are being worked on (`available`, `running`), and counts by state."""
        return _object(await self._read("/orchestrator/status"), effect=False)

    async def pipeline(self) -> frozenset[str] | None:
        """The tickets that are being converted or placed; None when the pipeline does not run."""
        answer = await self._read("/pipeline/status")
        body = _object(answer, effect=False)
        lists = (body.get("converting_tickets"), body.get("placing_tickets"))
        if body.get("running") is not True:
            return None
        if not all(isinstance(ids, _LIST) for ids in lists):
            raise unreadable(answer, ValueError("not the status of a pipeline"), effect=False)
        return frozenset(str(id_) for ids in lists if isinstance(ids, list) for id_ in ids)

    # --- HTTP

    async def _page(self, *, state: str | None, limit: int, offset: int) -> tuple[Tickets, int]:
        query = f"limit={limit}&offset={offset}"
        if state is not None:
            query += f"&state={_quoted(state)}"
        answer = await self._read(f"/tickets?{query}")
        body = _object(answer, effect=False)
        entries, total = body.get("tickets"), body.get("total")
        if not isinstance(entries, _LIST) or not isinstance(total, int):
            raise unreadable(answer, ValueError("not a page of tickets"), effect=False)
        try:
            return [RemoteTicket.from_json(entry) for entry in entries], total
        except ValueError as exc:
            raise unreadable(answer, exc, effect=False) from exc

    async def _read(self, path: str, *, own: Collection[int] = ()) -> Answer:
        """GET, again after what passes by itself; never again after a time-out, which is long."""
        for retry in range(_GET_RETRIES):
            try:
                answer = await self._send("GET", path, None)
            except _TIMED_OUT as exc:
                raise lost(exc, effect=False) from exc
            except httpx.TransportError:
                pass
            else:
                if answer.status != 500 or _LOCKED not in answer.text:
                    return _checked(answer, own, effect=False)
            await self._sleep(_RETRY_BASE_S * 2**retry * self._rng.uniform(0.5, 1.0))
        try:
            return _checked(await self._send("GET", path, None), own, effect=False)
        except _LOST as exc:
            raise lost(exc, effect=False) from exc

    async def _effect(
        self, method: str, path: str, *, body: bytes | None, own: Collection[int]
    ) -> Answer:
        """POST or DELETE, once. A cancelled call may have had its effect like any lost one."""
        try:
            answer = await self._send(method, path, body)
        except _LOST as exc:
            raise lost(exc, effect=True) from exc
        except TooLarge as exc:
            raise OutcomeUnknown(str(exc), settled=True) from exc
        return _checked(answer, own, effect=True)

    async def _send(self, method: str, path: str, body: bytes | None) -> Answer:
        # Without a body no content type may be sent, or Torrentino rejects the empty JSON.
        headers = {} if body is None else {"Content-Type": "application/json"}
        url = self._base + path
        async with (
            asyncio.timeout(self._deadline_s),
            self._http.stream(method, url, content=body, headers=headers) as response,
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


_LIST = list
_TIMED_OUT = (TimeoutError, httpx.TimeoutException)
_LOST = (TimeoutError, httpx.HTTPError, httpx.InvalidURL)


def _quoted(value: str) -> str:
    """`value` as one segment of a path; "." and ".." would be resolved away, so they are none."""
    if value in ("", ".", ".."):
        raise InvalidRequest(f"{value!r} is not the id of a ticket")
    return quote(value, safe="")


def _checked(answer: Answer, own: Collection[int], *, effect: bool) -> Answer:
    if answer.status in own or 200 <= answer.status < 300:
        return answer
    raise refused(answer, effect=effect)


def _object(answer: Answer, *, effect: bool) -> Mapping[str, object]:
    try:
        parsed = answer.json()
        if not isinstance(parsed, dict):
            raise ValueError("not an object")  # noqa: TRY004 it is the answer's fault
    except ValueError as exc:
        raise unreadable(answer, exc, effect=effect) from exc
    return parsed


def _ticket(answer: Answer, *, effect: bool) -> RemoteTicket:
    try:
        return RemoteTicket.from_json(answer.json())
    except ValueError as exc:
        raise unreadable(answer, exc, effect=effect) from exc


def _ticket_or_none(answer: Answer) -> RemoteTicket | None:
    if answer.status != 404:
        return _ticket(answer, effect=True)
    _require_not_found(answer, effect=True)
    return None


def _require_not_found(answer: Answer, *, effect: bool) -> None:
    """Pass for Torrentino's own "not found"; a stranger's 404 is a wrong URL, and no news."""
    if answer.error is None:
        raise refused(answer, effect=effect)
