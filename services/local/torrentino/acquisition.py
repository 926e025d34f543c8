"""The search for a pending ticket's torrents: one ticket at a time, highest priority first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.local.torrentino import states
from services.local.torrentino.content import Song
from services.local.torrentino.core import Core
from services.local.torrentino.faults import FATES
from services.local.torrentino.offers import Offer, offer_of_torrent, offers_of_song
from services.local.torrentino.scoring import AUTO_APPROVE, Scored, ranked
from services.local.torrentino.states import State
from services.local.torrentino.tickets import Ticket
from services.local.torrentino.timestamps import now_ns, zulu_now

_SEARCH_ERROR = (
    "Search failed: Search backend connection failed: error sending request for url"
    " (http://jackett:9117/api/v2.0/indexers/all/results?apikey=0123456789abcdef&Query=x)"
)
_TRANSIENT_ERROR = "Search backend API error: 503 Service Unavailable"
_LOG = logging.getLogger(__name__)
_CANDIDATES = 5
_RETRY_BEATS = 5  # the first delay; the real server's 5 s, with its 5 s beat scaled down


class Acquisition:
    """Searches for a ticket's content; the result overwrites any state that the ticket has then."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def acquire(self, ticket: Ticket) -> None:
        """Take `acquire_s` for all phases together, then write the outcome."""
        hands = ticket.hands
        query = str(ticket.query_context["description"])
        started_ns = now_ns()
        found = self._search(ticket)
        for phase in (
            {"phase": "query_building"},
            {"phase": "searching", "query": query},
            {"phase": "scoring", "candidates_count": found.count},
        ):
            if ticket.hands != hands:
                return
            state = states.acquiring(
                started_ns=started_ns,
                queries=[] if phase["phase"] == "query_building" else [query],
                found=found.count if phase["phase"] == "scoring" else 0,
                phase=phase,
            )
            self._core.tickets.put(ticket.id, state)
            await asyncio.sleep(self._core.config.acquire_s / 3)
        if ticket.hands == hands:
            self._core.tickets.put(ticket.id, self._outcome(ticket, found, query))

    def restore(self, ticket: Ticket) -> None:
        """Offer again what an earlier acquisition of the ticket found, if it still exists."""
        found = self._search(ticket)
        ticket.titles = ticket.titles or _titles(ticket, found.song)
        self._offers(ticket, found)

    def _search(self, ticket: Ticket) -> _Found:
        source, context = self._core.source, ticket.query_context
        torrents = source.search(context)
        if self._core.config.ticket_decoys:
            decoys = self._core.shelf.decoys([each.spec for each in torrents])
            both = [*ranked(decoys, context), *torrents]
            torrents = sorted(both, key=lambda each: -each.score)
        return _Found(song=source.find(context), torrents=torrents)

    def _outcome(self, ticket: Ticket, found: _Found, query: str) -> State:
        ticket.titles = _titles(ticket, found.song)
        fate = self._core.fate(ticket)
        if fate not in FATES:
            return states.failed(f"the stand-in knows no fate {fate!r}", retryable=False)
        if fate == "pending_retry" and ticket.retry_count == 0:
            return self._later(ticket)
        if fate == "search_error" or self._core.faults.searcher_away:
            return states.acquisition_failed(queries=[query], seen=0, reason=_SEARCH_ERROR)
        if fate == "unknown_state":
            return {"type": "from_the_future", "since": zulu_now(), "detail": {"level": 7}}
        offers = [] if fate == "not_found" else self._offers(ticket, found)
        if not offers:
            reason = "No suitable candidates found"
            return states.acquisition_failed(queries=[query], seen=0, reason=reason)
        return _choice(offers, fate)

    def _offers(self, ticket: Ticket, found: _Found) -> list[Offer]:
        """The torrents that can serve the ticket, best first; from now on each can be added."""
        offers = [] if found.song is None else self._of_song(ticket, found.song)
        offers += self._of_torrents(ticket, found.torrents)
        for offer in offers:
            self._core.torrents.offer(offer)
            self._core.catalog.saw(offer)
        return sorted(offers, key=lambda offer: -offer.score)[:_CANDIDATES]

    def _of_song(self, ticket: Ticket, song: Song) -> list[Offer]:
        faults, titles = self._core.faults, tuple(ticket.titles)
        if ticket.content is None:
            ticket.content = str(faults.next_substitute(titles) or song.path)
        try:
            return offers_of_song(
                song,
                Path(ticket.content),
                titles=titles,
                folder=faults.fate(titles) == "multi_file",
                spoiler=faults.spoiler(titles),
            )
        except OSError:
            return []  # the song's file is missing, so it has no seeder

    def _of_torrents(self, ticket: Ticket, torrents: Sequence[Scored]) -> list[Offer]:
        titles = tuple(ticket.titles)
        try:
            return [
                offer_of_torrent(found, titles=titles, second=place > 0)
                for place, found in enumerate(torrents)
            ]
        except OSError as exc:
            _LOG.warning("a torrent's file is missing, so the search omits it: %s", exc)
            return []

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


@dataclass(frozen=True, kw_only=True)
class _Found:
    song: Song | None
    torrents: Sequence[Scored]

    @property
    def count(self) -> int:
        return len(self.torrents) + (0 if self.song is None else 2)


def _choice(offers: Sequence[Offer], fate: str) -> State:
    if fate == "needs_approval":
        doubtful = [
            replace(offer, score=round(0.1 / 1.25**place, 4)) for place, offer in enumerate(offers)
        ]
        return states.needs_approval([offer.candidate() for offer in doubtful])
    candidates = [offer.candidate() for offer in offers]
    if offers[0].score < AUTO_APPROVE:
        return states.needs_approval(candidates)
    return states.auto_approved(candidates)


def _titles(ticket: Ticket, song: Song | None) -> list[str]:
    expected = ticket.query_context.get("expected")
    asked = expected.get("title") if isinstance(expected, dict) else None
    named = [asked, song.title if song else None]
    return list(dict.fromkeys(str(each).casefold() for each in named if each))
