"""The mode `tickets`: Torrentino searches, chooses, downloads and places, by a ticket.

The remote id of a download is the id of its ticket. A ticket is found again by the folder that was
ordered for it (`dest_path`), which no other attempt has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog

from shared.acquisition.protocol import Begun, Found, Location, ModeName, Phase, Seen, Started
from shared.acquisition.removal import Case, Ground, Permit, Removal
from shared.acquisition.ticket_reads import LIVE, Read, TicketReads
from shared.crashpoints import reached
from shared.errors import Dependency, OutcomeUnknown, Refused, Unavailable
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.model import ENDED, RemoteState, RemoteTicket, TicketRequest
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()

_LEADS_NOWHERE = ENDED - {RemoteState.COMPLETED}
_FAILED = frozenset(_LEADS_NOWHERE | {RemoteState.ACQUISITION_FAILED})
# Of a name in a folder, in bytes.
_LONGEST_NAME = 255


class Tickets:
    """`Mode[TicketRequest, RemoteTicket]` by Torrentino's tickets."""

    name: ModeName = "tickets"
    needs: Collection[Dependency] = frozenset[Dependency]({"torrentino"})

    def __init__(
        self,
        client: TorrentinoClient,
        *,
        dest_root: str,
        downloads_root: str | None = None,
        removal: Removal | None = None,
    ) -> None:
        """`removal`: for a `give_up` with the data."""
        self.client = client
        self._removal = removal
        self._dest_root = dest_root.rstrip("/")
        self._downloads_root = None if downloads_root is None else downloads_root.rstrip("/")
        self._reads = TicketReads(client)

    async def ready(self) -> None:
        """Return when Torrentino and its torrent client answer.

        A ticket would search every indexer before it finds that it cannot add what it found.
        """
        await self.client.client_answers()

    async def find(self, begun: Collection[Begun]) -> Mapping[str, Found]:
        """By folder. A create that was repeated can leave two tickets: one that lives is kept."""
        by_folder = await self.client.find_by_dest_paths([each.folder for each in begun])
        found = {each.id: by_folder.get(each.folder, []) for each in begun}
        return {id_: _found(tickets) for id_, tickets in found.items() if tickets}

    async def start(self, order: TicketRequest) -> Started:
        """Create the ticket: two calls make two tickets.

        Raises:
            AttemptFailed: Torrentino rejects the request (REJECTED).
            OutcomeUnknown: it may have been created.
        """
        return Started(remote_id=(await self.client.create(order)).id)

    async def follow(self, begun: Collection[Begun]) -> Mapping[str, Seen[RemoteTicket]]:
        """By id; one without an id by its folder, the live one if there are several."""
        read = await self._reads.read([each.remote_id for each in begun if each.remote_id])
        nameless = [each.folder for each in begun if each.remote_id is None]
        by_folder = await self.client.find_by_dest_paths(nameless)
        return {
            each.id: _seen(
                _live_first(by_folder.get(each.folder, []))
                if each.remote_id is None
                else read[each.remote_id]
            )
            for each in begun
        }

    async def locate(self, begun: Begun, seen: Seen[RemoteTicket], /) -> Location | None:
        """In the torrent's own folder where we see it; else in the folder that was ordered."""
        torrent = await self.client.torrent(begun.info_hash) if begun.info_hash else None
        return self.location(begun, seen, torrent)

    def location(
        self, begun: Begun, seen: Seen[RemoteTicket], torrent: RemoteTorrent | None
    ) -> Location | None:
        """As `locate`; `torrent` is that of the ticket, None if the client does not have it.

        Of a torrent that is not whole nothing is believed: Torrentino takes the progress of a check
        for that of the download, and places zeros then.
        """
        if torrent is not None and not torrent.whole:
            return None
        visible = None if torrent is None else self._visible_path(torrent)
        if torrent is not None and visible is not None:
            return Location(path=visible, in_torrent=True, size_bytes=torrent.size_bytes)
        if seen.phase is Phase.WHOLE:
            return Location(path=begun.folder, in_torrent=False)
        return None

    def _visible_path(self, torrent: RemoteTorrent) -> str | None:
        """Where its files are, as Torrentino sees it; None where we do not see them.

        The last name may not be that of the files; it is always a name that could be.
        """
        if self._downloads_root is None or torrent.save_path is None:
            return None
        path = f"{torrent.save_path}/{_possible_name(torrent)}"
        if path.startswith(f"{self._downloads_root}/"):
            return path
        log.info("torrent_elsewhere", path=path, downloads_root=self._downloads_root)
        return None

    async def give_up(
        self, begun: Collection[Begun], *, reason: str, with_data: bool
    ) -> frozenset[str]:
        """Cancel the tickets, and remove the torrents that they download.

        A cancel does not last while Torrentino searches or downloads: follow the ticket, and cancel
        it again. A torrent that another ticket follows stays.

        Raises:
            Unavailable: Torrentino does not answer; or its torrent client does not, so that a
                ticket would be cancelled whose torrent stays.
        """
        ended = set()
        for each in begun:
            remote = await self.client.get(each.remote_id) if each.remote_id else None
            if each.remote_id is None:
                continue
            if remote is None or remote.state in ENDED:
                ended.add(each.id)
            else:
                await self._cancel(remote, each, reason=reason, with_data=with_data)
        return frozenset(ended)

    async def _cancel(
        self, remote: RemoteTicket, begun: Begun, *, reason: str, with_data: bool
    ) -> None:
        info_hash = remote.info_hash if remote.state == RemoteState.DOWNLOADING else None
        if info_hash is not None and with_data and info_hash != begun.info_hash:
            log.info("cancel_put_off", ticket=remote.id, why="it downloads another torrent by now")
            return
        try:
            # Asked before the cancel: nothing may lie between that and the removal.
            async with self._removing(remote, begun, with_data=with_data) as permit:
                await self.client.cancel(remote.id, reason=reason)
                reached("poller.cancelled")
                # In this order: the other way round Torrentino takes the next candidate.
                if permit is not None and await permit.use():
                    reached("poller.torrent_removed")
        except (OutcomeUnknown, Refused) as error:
            log.info("cancel_unsettled", ticket=remote.id, detail=str(error))

    @asynccontextmanager
    async def _removing(
        self, remote: RemoteTicket, begun: Begun, *, with_data: bool
    ) -> AsyncIterator[Permit | None]:
        info_hash = remote.info_hash if remote.state == RemoteState.DOWNLOADING else None
        if info_hash is None or not with_data:
            yield None
            return
        assert self._removal is not None, "only with it may data be removed"
        case = Case(
            info_hash=info_hash,
            ground=Ground.UNWANTED,
            mode=self.name,
            download_id=begun.id,
            ticket_id=remote.id,
        )
        async with self._removal.of(case) as permit:
            yield permit

    async def present(self) -> frozenset[str]:
        """The hashes of all torrents that the client has."""
        torrents = await self.client.torrents()
        return frozenset(each.info_hash for each in torrents if each.info_hash is not None)

    def is_of(self, remote: RemoteTicket, *, installation: str) -> bool:
        """Whether this installation has ordered the ticket's folder."""
        above, _, name = remote.dest_path.rpartition("/")
        return above == f"{self._dest_root}/{installation}" and bool(name)

    async def living(self) -> list[RemoteTicket]:
        """All tickets in our folder that have not ended."""
        return await self._in(LIVE)

    async def ended(self) -> list[RemoteTicket]:
        """Those that have ended and may have left files."""
        return await self._in((RemoteState.COMPLETED, RemoteState.FAILED))

    async def _in(self, states: Sequence[RemoteState]) -> list[RemoteTicket]:
        return [
            remote
            for state in states
            async for remote in self.client.list(state=state)
            if remote.dest_path.startswith(f"{self._dest_root}/")
        ]


def begun_of(remote: RemoteTicket, *, id_: str | None = None) -> Begun:
    """The ticket as it is at Torrentino."""
    downloads = remote.state == RemoteState.DOWNLOADING
    return Begun(
        id=remote.id if id_ is None else id_,
        remote_id=remote.id,
        folder=remote.dest_path,
        info_hash=remote.info_hash if downloads else None,
    )


def _found(tickets: Sequence[RemoteTicket]) -> Found:
    kept = min(tickets, key=lambda remote: remote.state in _LEADS_NOWHERE)
    extra = (each.id for each in tickets if each is not kept and each.state not in ENDED)
    return Found(remote_id=kept.id, extra=tuple(extra))


def _live_first(tickets: Sequence[RemoteTicket]) -> RemoteTicket | None:
    return next((each for each in tickets if each.state in LIVE), next(iter(tickets), None))


def _seen(remote: Read) -> Seen[RemoteTicket]:
    if isinstance(remote, Unavailable):
        return Seen(phase=Phase.UNREADABLE, remote=None, fault=remote)
    return Seen(phase=Phase.GONE if remote is None else phase_of(remote), remote=remote)


def phase_of(remote: RemoteTicket) -> Phase:
    """How far Torrentino is with a ticket."""
    if remote.state == RemoteState.COMPLETED:
        return Phase.WHOLE
    return Phase.FAILED if remote.state in _FAILED else Phase.WORKING


def _possible_name(torrent: RemoteTorrent) -> str:
    if torrent.path is not None:
        name = torrent.path.rpartition("/")[2]
    else:
        name = "".join(c if c.isprintable() else "_" for c in torrent.title.replace("/", "_"))
    shortened = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return shortened if shortened not in ("", ".", "..") else "_"
