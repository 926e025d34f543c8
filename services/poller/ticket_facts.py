"""What a decision about a ticket may need to know: each fact asked for lazily, and at most once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from services.poller.blocked_torrents import BlockedTorrents
from services.poller.store import OpenTicket, Store
from services.poller.ticket_verdict import Verdict, verdict_of
from services.poller.torrent_client import TorrentClient
from shared.acquisition.protocol import Seen
from shared.acquisition.tickets import Tickets
from shared.choosing.placeable import refused_formats
from shared.media.formats import ANYTHING
from shared.settings import Settings
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.look_ups import MISSING, Missing
from shared.torrentino.model import RemoteState, RemoteTicket
from shared.torrentino.torrent import RemoteTorrent
from shared.tracks import WantedTrack

Grouping: TypeAlias = Literal["auto", "track", "album"]


class _Remembers(Protocol):
    answers: dict[str, Any]


AskerT = TypeVar("AskerT", bound=_Remembers)
AnswerT = TypeVar("AnswerT")


def once(
    ask: Callable[[AskerT], Awaitable[AnswerT]],
) -> Callable[[AskerT], Coroutine[Any, Any, AnswerT]]:
    """Have the method ask at most once for each object; a failure is not remembered."""
    name = ask.__name__

    @wraps(ask)
    async def asked(self: AskerT) -> AnswerT:
        if name not in self.answers:
            self.answers[name] = await ask(self)
        answer: AnswerT = self.answers[name]
        return answer

    return asked


class AtWork:
    """What Torrentino works on: for all tickets of one run, which were read before it is asked."""

    def __init__(self, client: TorrentinoClient) -> None:
        self.answers: dict[str, Any] = {}
        self._client = client

    @once
    async def pipeline(self) -> frozenset[str] | Missing | None:
        """As `LookUps.pipeline`."""
        return await self._client.look_ups.pipeline()

    @once
    async def orchestrator_runs(self) -> bool:
        """Whether Torrentino works on tickets at all; where it does not tell, it does."""
        return await self._client.look_ups.orchestrator_runs() is not False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who answers the questions, and the rules that the answers are judged by."""

    tickets: Tickets
    store: Store
    blocked_torrents: BlockedTorrents
    torrent_client: TorrentClient
    settings: Settings


class TicketFacts:
    """One ticket, as it is recorded and as it was read, and what more can be asked about it."""

    def __init__(
        self,
        ticket: OpenTicket,
        seen: Seen[RemoteTicket],
        asked: Asked,
        at_work: AtWork,
        *,
        refusals: int,
    ) -> None:
        self.answers: dict[str, Any] = {}
        self.ticket = ticket
        self.seen = seen
        self.asked = asked
        self.at_work = at_work
        # How often a blocked torrent was taken from this ticket.
        self.refusals = refusals

    @property
    def remote(self) -> RemoteTicket:
        """The ticket as it was read."""
        assert self.seen.remote is not None, "what is gone is not asked about"
        return self.seen.remote

    @cached_property
    def verdict(self) -> Verdict:
        """What its state means by itself."""
        return verdict_of(self.remote)

    @property
    def grouping(self) -> Grouping:
        """TICKET_GROUPING."""
        return self.asked.settings.ticket_grouping

    @property
    def stall_timeout_s(self) -> float:
        """STALL_TIMEOUT_S."""
        return self.asked.settings.stall_timeout_s

    @property
    def poll_interval_s(self) -> float:
        """POLL_INTERVAL_S."""
        return self.asked.settings.poll_interval_s

    @property
    def same_state(self) -> bool:
        """Whether it was in this state already when it was read last."""
        return self.ticket.remote_state == self.remote.state

    @property
    def idle_s(self) -> float:
        """Seconds without progress, unless this look shows some."""
        return (self.ticket.now - self.ticket.progressed_at).total_seconds()

    @once
    async def source(self) -> str | None:
        """The info-hash of its torrent: as it was seen, else by the path that its pipeline took."""
        return self.ticket.info_hash or await self._unseen_torrent()

    async def _unseen_torrent(self) -> str | None:
        """The torrent of a ticket that downloaded between two looks, if traces tell it."""
        client = self.asked.tickets.client
        path = await client.look_ups.conversion_input(self.remote.id)
        if path is None or path is MISSING:
            return None
        named = [each for each in await client.torrents() if path in _named_paths(each)]
        if len(named) != 1 or named[0].info_hash is None:
            return None
        await self.asked.store.remember_source(self.ticket, named[0].info_hash, named[0].title)
        return named[0].info_hash

    @once
    async def torrent(self) -> RemoteTorrent | None:
        """Its torrent, if that is known and the client has it."""
        info_hash = await self.source()
        return await self.asked.tickets.client.torrent(info_hash) if info_hash else None

    @once
    async def listed_files(self) -> list[str] | None:
        """The paths of the torrent's files, if Torrentino's catalog knows them."""
        info_hash = await self.source()
        return await self.files_of(info_hash)

    async def files_of(self, info_hash: str | None) -> list[str] | None:
        """As `listed_files`, of a candidate."""
        client = self.asked.tickets.client
        files = await client.look_ups.catalog_files(info_hash) if info_hash else None
        return None if files is None or files is MISSING else [path for path, _ in files]

    @once
    async def never_placed(self) -> frozenset[str]:
        """Its candidates in formats that can never be placed, by their titles.

        Torrentino's pipeline converts what it places: then only what nothing decodes.
        """
        settings = self.asked.settings
        accepted = settings.accepted if settings.torrentino_downloads_root else ANYTHING
        titles = self.remote.titles.items()
        if not any(refused_formats(title, (), accepted) for _, title in titles):
            return frozenset()
        wanted = await self.wanted()
        names = {each.track.title for each in wanted} | {each.album or "" for each in wanted}
        names |= {each.track.artist or "" for each in wanted}
        names |= {each.album_artist or "" for each in wanted}
        return frozenset(
            hash_ for hash_, title in titles if refused_formats(title, names, accepted)
        )

    @once
    async def may_refuse(self) -> bool:
        """Whether the torrent that it downloads may be removed from under it."""
        info_hash = self.remote.info_hash
        return info_hash is not None and await self.asked.blocked_torrents.may_refuse(
            info_hash, ticket=self.ticket
        )

    @once
    async def is_unchanged(self) -> bool:
        """Whether the ticket, read once more, is as it was: not moved on, not begun again."""
        again = await self.asked.tickets.client.get(self.remote.id)
        read = (self.remote.state, self.remote.updated)
        return again is not None and (again.state, again.updated) == read

    @once
    async def mappings(self) -> list[dict[str, Any]]:
        """Which files Torrentino took for which tracks."""
        return await self.asked.store.file_mappings(self.ticket)

    @once
    async def processed_files(self) -> dict[str, str]:
        """What the pipeline was told to place: new name -> path in the torrent."""
        return await self.asked.store.processed_files(self.ticket)

    @once
    async def wanted(self) -> list[WantedTrack]:
        """The tracks that wait for it."""
        return await self.asked.store.wanted(self.ticket)

    @once
    async def album_name(self) -> str | None:
        """The album of an album's ticket."""
        return await self.asked.store.album_name(self.ticket)

    @once
    async def album_to_ask_for(self) -> tuple[str, str] | None:
        """Title and album of a track's ticket, if a ticket of the album may serve it next."""
        return await self.asked.store.album_to_ask_for(self.ticket)

    @once
    async def waits_its_turn(self) -> bool:
        """Whether Torrentino, which searches for one ticket at a time, searches for others."""
        if self.ticket.remote_state != RemoteState.PENDING:
            return False
        store = self.asked.store
        async with store.database.connection() as connection:
            return await store.others_progress(
                connection, self.ticket, within_s=self.stall_timeout_s
            )


def _named_paths(torrent: RemoteTorrent) -> set[str]:
    """What Torrentino takes for the place of its data; a title may be shortened or redacted."""
    return {path for path in (torrent.path, f"{torrent.save_path}/{torrent.title}") if path}
