"""The mode `direct`: we search and choose, and Torrentino's torrent client downloads.

The remote id of a download is the info-hash of its torrent. A release may not tell its hash; then
its torrent is known as the one that is new at the client and of its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from shared.acquisition.protocol import Begun, Found, Location, ModeName, Phase, Seen, Started
from shared.acquisition.removal import Case, Ground, Removal, Standing
from shared.crashpoints import reached
from shared.errors import Conflict, Dependency, OutcomeUnknown, Refused
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()

# What was added shows in the list of qBittorrent in a moment.
_LIST_PAUSES_S = (0.0, 0.2, 0.5, 1.0, 2.0)
# Indexers round sizes.
_SIZE_TOLERANCE = 0.02
# Below the folder of downloads.
_OUR_FOLDER = "pezzottify"
_ERROR = "error"

Torrents = Collection[RemoteTorrent]


@dataclass(frozen=True, kw_only=True)
class TorrentOrder:
    """A torrent to add, by one of the links of a release."""

    link: str = field(repr=False)
    folder: str
    # Empty: the indexer does not tell it.
    info_hash: str
    # 0: the indexer does not tell it.
    size_bytes: int
    # The hashes that the client had before.
    before: frozenset[str]


class Direct:
    """`Mode[TorrentOrder, RemoteTorrent]` by Torrentino's torrent routes."""

    name: ModeName = "direct"
    needs: Collection[Dependency] = ("torrentino", "torrent_client")

    def __init__(
        self,
        client: TorrentinoClient,
        *,
        downloads_root: str | None,
        removal: Removal | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`removal`: for `give_up`."""
        self.client = client
        self._removal = removal
        self._root = (downloads_root or "/").rstrip("/")
        self._sleep = sleep

    def folder_of(self, id_: str, *, installation: str) -> str:
        """The folder to order for a download of this id of this installation.

        Each has its own: qBittorrent writes a second torrent of the same folder and file names
        over the first. librqbit saves where it always does, and refuses the second.
        """
        return f"{self._folder_of_all(installation)}/{id_}"

    def _folder_of_all(self, installation: str) -> str:
        return f"{self._root}/{_OUR_FOLDER}/{installation}"

    async def of_installation(self, installation: str) -> dict[str, RemoteTorrent]:
        """The torrents in folders that this installation has ordered, by download id.

        librqbit saves elsewhere, so with it there are none.
        """
        above = f"{self._folder_of_all(installation)}/"
        return {
            each.save_path.removeprefix(above): each
            for each in await self.client.torrents()
            if each.info_hash is not None
            and each.save_path is not None
            and each.save_path.startswith(above)
        }

    def entry_of(self, path: str) -> str | None:
        """The entry of the downloads folder that `path` is, or is below; None: it is elsewhere."""
        below = path.removeprefix(f"{self._root}/")
        return None if below == path else f"{self._root}/{below.partition('/')[0]}"

    async def ready(self) -> None:
        """Return when Torrentino and its torrent client answer."""
        await self.client.client_answers()

    async def present(self) -> frozenset[str]:
        """The hashes of all torrents that the client has."""
        torrents = await self.client.torrents()
        return frozenset(each.info_hash for each in torrents if each.info_hash is not None)

    async def find(self, begun: Collection[Begun]) -> Mapping[str, Found]:
        """By hash, else by the size of a torrent that was not there before."""
        torrents = await self.client.torrents() if begun else []
        found = {each.id: _known(each, torrents) or _new_of_size(each, torrents) for each in begun}
        return {id_: Found(remote_id=hash_) for id_, hash_ in found.items() if hash_ is not None}

    async def start(self, order: TorrentOrder) -> Started:
        """Add the torrent; adding what is there changes nothing.

        Raises:
            NotAdded: the link is dead, or the client does not take what it leads to.
            OutcomeUnknown: it may have been added, or the list does not show it yet.
        """
        told = await self.client.add_torrent(order.link, folder=order.folder)
        reached("direct.added")
        info_hash = await self._shown(told, order)
        return Started(remote_id=info_hash, was_there=info_hash in order.before)

    async def _shown(self, told: str | None, order: TorrentOrder) -> str:
        """The hash of what was added: the client's answer where it is plausible, else the list's.

        librqbit may answer with another torrent that is added at the same moment by another user,
        and has not added this one then.
        """
        if order.info_hash and told in (None, order.info_hash):
            # If the indexer was wrong, the poller finds the torrent by its size.
            return order.info_hash
        for pause_s in _LIST_PAUSES_S:
            await self._sleep(pause_s)
            found = _added(await self.client.torrents(), order, told=told)
            if found is not None:
                return found
        raise OutcomeUnknown("the torrent client does not show what was added", settled=True)

    async def follow(self, begun: Collection[Begun]) -> Mapping[str, Seen[RemoteTorrent]]:
        """One list of the client's torrents serves all."""
        by_hash = {each.info_hash: each for each in await self.client.torrents()}
        found = {each.id: by_hash.get(each.remote_id) if each.remote_id else None for each in begun}
        return {id_: Seen(phase=_phase(torrent), remote=torrent) for id_, torrent in found.items()}

    async def locate(self, _begun: Begun, seen: Seen[RemoteTorrent], /) -> Location | None:
        """In the torrent's own folder, once it is whole."""
        return self.location(seen)

    def location(self, seen: Seen[RemoteTorrent]) -> Location | None:
        """As `locate`: the torrent itself tells where it is."""
        torrent = seen.remote
        if torrent is None or seen.phase is not Phase.WHOLE:
            return None
        path = torrent.path or f"{torrent.save_path}/{torrent.title.replace('/', '_')}"
        return Location(path=path, in_torrent=True, size_bytes=torrent.size_bytes)

    async def give_up(
        self, begun: Collection[Begun], *, reason: str, with_data: bool
    ) -> frozenset[str]:
        """Take the torrents out of the client, where `Removal` allows it.

        What is not ours has ended for us, and stays there.
        """
        ended = set()
        for each in begun:
            if each.remote_id is not None and await self._remove(
                each, each.remote_id, reason, with_data=with_data
            ) in (Standing.FREE, Standing.FOREIGN):
                ended.add(each.id)
        return frozenset(ended)

    async def take_out(self, begun: Begun, *, reason: str) -> bool:
        """Take one torrent in error out with its data, unless a download needs it.

        False: a torrent is being added just now, and may be this one. Ask again.
        """
        if begun.remote_id is None:
            return True
        removed = await self._remove(
            begun, begun.remote_id, reason, with_data=True, ground=Ground.FAILED
        )
        return removed is not None

    async def _remove(
        self,
        begun: Begun,
        info_hash: str,
        reason: str,
        *,
        with_data: bool,
        ground: Ground = Ground.UNWANTED,
    ) -> Standing | None:
        """What became of it; None: nothing yet."""
        assert self._removal is not None, "what gives up has it"
        case = Case(
            info_hash=info_hash,
            ground=ground,
            mode=self.name,
            download_id=begun.id,
            keeps_files=not with_data,
        )
        try:
            standing = await self._removal.torrent(case)
        except Conflict:
            return None
        except (OutcomeUnknown, Refused) as error:
            log.info("removal_unsettled", info_hash=info_hash, detail=str(error))
            return Standing.NEEDED
        if standing is Standing.FREE:
            log.info("download_removed", info_hash=info_hash, reason=reason)
        return standing


def _phase(torrent: RemoteTorrent | None) -> Phase:
    if torrent is None:
        return Phase.GONE
    if torrent.state == _ERROR:
        return Phase.FAILED
    return Phase.WHOLE if torrent.whole else Phase.WORKING


def _known(begun: Begun, torrents: Torrents) -> str | None:
    there = any(each.info_hash == begun.remote_id for each in torrents)
    return begun.remote_id if there else None


def _new_of_size(begun: Begun, torrents: Torrents) -> str | None:
    """The only torrent of just this size that was not at the client before."""
    if begun.before is None or not begun.size_bytes:
        return None
    new = [
        each.info_hash
        for each in torrents
        if each.info_hash not in begun.before and each.size_bytes == begun.size_bytes
    ]
    return new[0] if len(new) == 1 else None


def _added(torrents: Torrents, order: TorrentOrder, *, told: str | None) -> str | None:
    """Which of these torrents was added; `told` is the client's answer to the add."""
    by_hash = {torrent.info_hash: torrent for torrent in torrents}
    if order.info_hash in by_hash:
        return order.info_hash
    new = [torrent for torrent in torrents if torrent.info_hash not in order.before]
    if told is not None:
        # Of another size it is one that another user added at the same moment.
        new = [torrent for torrent in new if torrent.info_hash == told]
    # Where the indexer tells a hash, only what has all of the bytes may have another.
    exact = [each for each in new if each.size_bytes == order.size_bytes]
    if len(exact) == 1 or order.info_hash:
        return exact[0].info_hash if len(exact) == 1 else None
    alike = [each for each in new if _alike(each.size_bytes, order.size_bytes)]
    if not new:
        return _there_before(torrents, order, told=told)
    return alike[0].info_hash if len(alike) == 1 else None


def _there_before(torrents: Torrents, order: TorrentOrder, *, told: str | None) -> str | None:
    """The torrent that the client had already, where adding made no new one."""
    alike = [each for each in torrents if _alike(each.size_bytes, order.size_bytes)]
    named = next((each for each in alike if each.info_hash == told), None)
    if named is not None and told is not None:
        return named.info_hash
    # Of hundreds many are of about one size; two of exactly one size are rare.
    exact = [each for each in alike if each.size_bytes == order.size_bytes]
    if len(exact) == 1:
        return exact[0].info_hash
    return alike[0].info_hash if len(alike) == 1 else None


def _alike(size_bytes: int | None, told_bytes: int) -> bool:
    """Whether these may be the same bytes; what an indexer does not tell may be any."""
    if not told_bytes:
        return True
    return bool(size_bytes) and abs((size_bytes or 0) - told_bytes) <= _SIZE_TOLERANCE * told_bytes
