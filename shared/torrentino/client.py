"""Torrentino's HTTP API. Every failure is one of `shared.errors`; see `answers` for the table."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

import httpx

from shared.errors import (
    AttemptFailed,
    Conflict,
    Dependency,
    ErrorType,
    InvalidRequest,
    Misconfigured,
    Unavailable,
)
from shared.media.formats import ANYTHING, Accepted
from shared.torrentino.answers import Answer, TooLarge, unreadable
from shared.torrentino.engine import EngineCalls
from shared.torrentino.http import Http, Sleep, object_of, quoted, require_not_found
from shared.torrentino.look_ups import LookUps
from shared.torrentino.model import RemoteTicket, TicketRequest
from shared.torrentino.search import SearchCalls
from shared.torrentino.torrents import TorrentCalls

# Named out here because inside the class `list` is the method.
Tickets = list[RemoteTicket]
Entries = list[object]


class TorrentinoClient(SearchCalls, TorrentCalls, EngineCalls):
    """One server's API. Safe to share between tasks; `close` it once.

    Raises:
        Misconfigured: `base_url` or `api_key` can never work.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        accepted: Accepted = ANYTHING,
        timeout_s: float = 10,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.http = Http(
            base_url=base_url,
            api_key=api_key,
            timeout_s=timeout_s,
            transport=transport,
            sleep=sleep,
            rng=rng,
        )
        self.accepted = accepted
        # What is asked only through this is optional.
        self.look_ups = LookUps(self)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()

    async def answers(self) -> None:
        """Return when Torrentino works as far as one short look can tell: its API, with our key.

        Raises:
            Unavailable: it does not.
        """
        await self.health()
        await self._page(state=None, limit=1, offset=0)

    async def works(self, dependency: Dependency) -> bool:
        """Whether Torrentino, or its torrent client, works right after a call has failed on it.

        Then the failure was of that one ticket or torrent. False for what this does not tell.
        """
        looks = {"torrentino": self.answers, "torrent_client": self.client_works}
        if dependency not in looks:
            return False
        try:
            await looks[dependency]()
        except Unavailable:
            return False
        return True

    async def create(self, request: TicketRequest) -> RemoteTicket:
        """Make a ticket. Not idempotent: two calls make two tickets.

        Raises:
            AttemptFailed: Torrentino rejects what we ask for (REJECTED).
            OutcomeUnknown: find it by its `dest_path` before asking again.
        """
        answer = await self.http.effect(
            "POST", "/tickets", body=request.to_json(), own={400, 413, 415, 422}
        )
        if answer.status >= 400:
            raise AttemptFailed(
                ErrorType.REJECTED,
                f"Torrentino rejects the request ({answer.status}): {answer.text}",
            )
        return _ticket(answer, effect=True)

    async def get(self, ticket_id: str, *, patience_s: float | None = None) -> RemoteTicket | None:
        """The ticket as it stands, or None when there is none with this id.

        `patience_s`: how long the answer may take, where that is not the usual time.
        """
        path = f"/tickets/{quoted(ticket_id)}"
        answer = await self.http.read(path, own={404}, patience_s=patience_s)
        if answer.status == 404:
            require_not_found(answer, effect=False)
            return None
        return _ticket(answer, effect=False)

    async def list(
        self, *, state: str | None = None, page_size: int = 1000, max_pages: int = 100
    ) -> AsyncGenerator[RemoteTicket, None]:
        """Every ticket (in `state`), each once, highest priority and then oldest first.

        Tickets move while the pages are read. Those that shift back across a page boundary are
        asked for again where the total shows that there are some; with `state` some may be missed.
        Pages whose answer is too large are asked for again in halves. An entry that cannot be read
        is left out, or UNREADABLE.

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
            for ticket in map(RemoteTicket.from_list, page):
                if ticket is not None and ticket.id not in seen:
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

        Two tickets may share one, where a create was repeated without a check.
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
        path, body = f"/tickets/{quoted(ticket_id)}", json.dumps({"reason": reason}).encode()
        answer = await self.http.effect("DELETE", path, body=body, own={404, 409})
        if answer.status == 409:
            return await self.get(ticket_id)
        return _ticket_or_none(answer)

    async def delete_ticket(self, ticket_id: str) -> None:
        """Remove the ticket's row, in whatever state; fine when there is none with this id.

        What works on it continues: only for tickets that have ended.

        Raises:
            OutcomeUnknown: it may be gone.
        """
        path = f"/tickets/{quoted(ticket_id)}/delete?confirm=true"
        _ticket_or_none(await self.http.effect("POST", path, body=None, own={404}))

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
        path = f"/tickets/{quoted(ticket_id)}/{verb}"
        content = None if body is None else json.dumps(body).encode()
        answer = await self.http.effect("POST", path, body=content, own={400, 404, 409, 422})
        if answer.status == 409:
            raise Conflict(f"Torrentino: {answer.text}")
        if answer.status in (400, 422):
            raise InvalidRequest(f"Torrentino: {answer.text}")
        return _ticket_or_none(answer)

    async def _page(self, *, state: str | None, limit: int, offset: int) -> tuple[Entries, int]:
        query = f"limit={limit}&offset={offset}"
        if state is not None:
            query += f"&state={quoted(state)}"
        answer = await self.http.read(f"/tickets?{query}")
        body = object_of(answer, effect=False)
        entries, total = body.get("tickets"), body.get("total")
        if not isinstance(entries, _LIST) or not isinstance(total, int):
            raise unreadable(answer, ValueError("not a page of tickets"), effect=False)
        return entries, total


_LIST = list


def _ticket(answer: Answer, *, effect: bool) -> RemoteTicket:
    try:
        return RemoteTicket.from_json(answer.json())
    except ValueError as exc:
        raise unreadable(answer, exc, effect=effect) from exc


def _ticket_or_none(answer: Answer) -> RemoteTicket | None:
    if answer.status != 404:
        return _ticket(answer, effect=True)
    require_not_found(answer, effect=True)
    return None
