"""From pending to a choice of torrents: one ticket at a time, highest priority first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from shared.local.torrentino import states
from shared.local.torrentino.config import Song
from shared.local.torrentino.core import Core
from shared.local.torrentino.faults import FATES
from shared.local.torrentino.states import Candidate, State
from shared.local.torrentino.tickets import Ticket
from shared.local.torrentino.timestamps import now_ns, zulu_now
from shared.local.torrentino.torrents import Offer, offers_for

_SEARCH_ERROR = (
    "Search failed: Search backend connection failed: error sending request for url"
    " (http://jackett:9117/api/v2.0/indexers/all/results?apikey=0123456789abcdef&Query=x)"
)
_TRANSIENT_ERROR = "Search backend API error: 503 Service Unavailable"
_RETRY_BEATS = 5  # the first delay; the real server's 5 s, with its 5 s beat scaled down


class Acquisition:
    """Looks for a ticket's content and writes what it found over whatever the ticket is by then."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def acquire(self, ticket: Ticket) -> None:
        """Take `acquire_s` for all phases together, then write the outcome."""
        hands = ticket.hands
        query = str(ticket.query_context["description"])
        started_ns = now_ns()
        song = self._core.source.find(ticket.query_context)
        found = 0 if song is None else 2
        for phase in (
            {"phase": "query_building"},
            {"phase": "searching", "query": query},
            {"phase": "scoring", "candidates_count": found},
        ):
            if ticket.hands != hands:
                return
            state = states.acquiring(
                started_ns=started_ns,
                queries=[] if phase["phase"] == "query_building" else [query],
                found=found if phase["phase"] == "scoring" else 0,
                phase=phase,
            )
            self._core.tickets.put(ticket.id, state)
            await asyncio.sleep(self._core.config.acquire_s / 3)
        if ticket.hands == hands:
            self._core.tickets.put(ticket.id, self._outcome(ticket, song, query))

    def restore(self, ticket: Ticket) -> list[Offer]:
        """Offer again what an earlier acquisition of the ticket has found; [] when it is gone."""
        song = self._core.source.find(ticket.query_context)
        ticket.titles = ticket.titles or _titles(ticket, song)
        return [] if song is None else self._offers(ticket, song)

    def _outcome(self, ticket: Ticket, song: Song | None, query: str) -> State:
        ticket.titles = _titles(ticket, song)
        fate = self._core.fate(ticket)
        if fate not in FATES:
            return states.failed(f"the stand-in knows no fate {fate!r}", retryable=False)
        if fate == "pending_retry" and ticket.retry_count == 0:
            return self._later(ticket)
        if fate == "search_error":
            return states.acquisition_failed(queries=[query], seen=0, reason=_SEARCH_ERROR)
        if fate == "unknown_state":
            return {"type": "from_the_future", "since": zulu_now(), "detail": {"level": 7}}
        offers = [] if song is None or fate == "not_found" else self._offers(ticket, song)
        if not offers:
            reason = "No suitable candidates found"
            return states.acquisition_failed(queries=[query], seen=0, reason=reason)
        return _choice(offers, fate)

    def _offers(self, ticket: Ticket, song: Song) -> list[Offer]:
        faults, titles = self._core.faults, tuple(ticket.titles)
        if ticket.content is None:
            ticket.content = str(faults.next_substitute(titles) or song.path)
        try:
            offers = offers_for(
                artist=song.artist,
                title=song.title,
                path=Path(ticket.content),
                titles=titles,
                folder=faults.fate(titles) == "multi_file",
            )
            if (spoiler := faults.spoiler(titles)) is not None:
                size_bytes = spoiler.stat().st_size
                offers[0] = replace(offers[0], path=spoiler, size_bytes=size_bytes)
        except OSError:
            return []  # the song's file is away: nobody seeds it
        for offer in offers:
            self._core.torrents.offer(offer)
        return offers

    def _later(self, ticket: Ticket) -> State:
        ticket.retry_count += 1
        beat_s = max(self._core.config.tick_s, 0.001)
        delay_s = _RETRY_BEATS * beat_s * 2.5 ** (ticket.retry_count - 1)
        return states.pending_retry(
            error=_TRANSIENT_ERROR,
            attempt=ticket.retry_count,
            retry_after_ns=now_ns() + int(delay_s * 1e9),
            phase="acquisition",
        )


def _choice(offers: list[Offer], fate: str) -> State:
    if fate == "needs_approval":
        return states.needs_approval([offers[0].candidate(0.1), offers[1].candidate(0.08)])
    candidates: list[Candidate] = [offers[0].candidate(0.93), offers[1].candidate(0.87)]
    return states.auto_approved(candidates)


def _titles(ticket: Ticket, song: Song | None) -> list[str]:
    expected = ticket.query_context.get("expected")
    asked = expected.get("title") if isinstance(expected, dict) else None
    named = [asked, song.title if song else None]
    return list(dict.fromkeys(str(each).casefold() for each in named if each))
