"""How the files of an ended ticket reach us.

Torrentino's pipeline takes a torrent for one file, so a ticket on a folder fails when all is
downloaded. Then the torrent's own folder serves, where we see it; otherwise the pipeline is told,
once, which files to place. What is recorded before it is told is what they will be called.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.poller.choosing import choose, pipeline_format
from services.poller.mapping import (
    AskAgain,
    Collect,
    Follow,
    GiveUp,
    Process,
    only_bad_sources,
)
from services.poller.store import OpenTicket, Store
from shared.errors import (
    AttemptFailed,
    Conflict,
    ErrorType,
    InvalidRequest,
    OutcomeUnknown,
    Unknown,
)
from shared.states import Stage
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.engine import SourceFile
from shared.torrentino.model import RemoteState, RemoteTicket
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()

# A request that changed nothing for so many intervals was lost.
_LOST_INTERVALS = 12
_BITRATE_KBPS = 320
_CURE = (
    "Torrentino's pipeline cannot place this torrent, and does not know its files: set"
    " TORRENTINO_DOWNLOADS_ROOT and TORRENTINO_DOWNLOADS_MOUNT, so that they can be taken from the"
    " torrent's own folder"
)


class Gatherer:
    """Decides about tickets that have ended; asks Torrentino, and changes nothing but `ask`."""

    def __init__(
        self,
        client: TorrentinoClient,
        store: Store,
        *,
        downloads_root: str | None,
        poll_interval_s: float,
    ) -> None:
        self._client = client
        self._store = store
        self._root = None if downloads_root is None else downloads_root.rstrip("/")
        self._lost_s = _LOST_INTERVALS * poll_interval_s

    async def decide(
        self, ticket: OpenTicket, remote: RemoteTicket, failure: AttemptFailed | None
    ) -> Collect | Process | Follow | GiveUp:
        """What to do about a ticket that is completed, or (`failure`) that could not be placed.

        Raises:
            Hold: Torrentino does not answer, or refuses us.
        """
        if ticket.process_asked_at is not None:
            return await self._processed(ticket, remote, failure)
        info_hash = ticket.info_hash or await self._unseen_source(ticket)
        if info_hash in ticket.blocked:
            return only_bad_sources(ticket.blocked, withdraw=False)
        needed = failure is not None or self._root is not None
        torrent = await self._client.torrent(info_hash) if info_hash and needed else None
        if torrent is None or not torrent.complete:
            return Collect() if failure is None else GiveUp(failure=failure)
        if self._is_visible(torrent):
            return Collect(torrent_path=torrent.path)
        if failure is None:
            return Collect()
        assert info_hash is not None, "it has led to the torrent"
        return await self._first_plan(ticket, torrent, info_hash, failure)

    async def again(
        self, ticket: OpenTicket, otherwise: AskAgain | GiveUp
    ) -> Process | AskAgain | GiveUp:
        """Tell the pipeline once more what it was told; `otherwise` when the torrent is gone."""
        torrent = None if ticket.info_hash is None else await self._client.torrent(ticket.info_hash)
        names = await self._store.processed_files(ticket)
        if torrent is None or torrent.save_path is None or not torrent.complete or not names:
            return otherwise
        return _plan(torrent.save_path, names, again=True)

    async def ask(self, ticket: OpenTicket, plan: Process) -> AttemptFailed | None:
        """Tell the pipeline; returns why the attempt is over, if it refuses for good.

        Raises:
            DependencyDown: Torrentino does not answer; it is told again later.
        """
        assert ticket.torrentino_id is not None, "it has ended at Torrentino"
        try:
            await self._client.process(
                ticket.torrentino_id,
                plan.files,
                dest_dir=ticket.dest_path,
                output_format=plan.output_format,
                bitrate_kbps=_BITRATE_KBPS,
            )
        except InvalidRequest as error:
            return AttemptFailed(ErrorType.STORAGE, str(error))
        except (OutcomeUnknown, Unknown, Conflict) as error:
            # The next looks at the ticket show what came of it.
            log.info("processing_unsettled", ticket=ticket.torrentino_id, detail=str(error))
        else:
            log.info("processing", ticket=ticket.torrentino_id, files=len(plan.files))
        return None

    async def _processed(
        self, ticket: OpenTicket, remote: RemoteTicket, failure: AttemptFailed | None
    ) -> Collect | Process | Follow | GiveUp:
        if failure is None:
            return Collect()
        if remote.updated != ticket.process_after:
            return GiveUp(failure=failure)
        asked_s = (
            (ticket.now - ticket.process_asked_at).total_seconds() if ticket.process_asked_at else 0
        )
        if asked_s < self._lost_s:
            return Follow(stage=Stage.PROCESSING, reason="Torrentino is told which files to place")
        plan = await self.again(ticket, GiveUp(failure=failure))
        assert not isinstance(plan, AskAgain), "it is given back as it was given"
        return plan

    async def _unseen_source(self, ticket: OpenTicket) -> str | None:
        """The torrent of a ticket that downloaded between two looks, as far as traces tell."""
        assert ticket.torrentino_id is not None, "it has ended at Torrentino"
        path = await self._client.conversion_input(ticket.torrentino_id)
        if path is None:
            return None
        name = path.rpartition("/")[2]
        info_hash = await self._client.torrent_named(name)
        torrent = None if info_hash is None else await self._client.torrent(info_hash)
        if info_hash is None or torrent is None or torrent.path != path:
            return None
        await self._store.remember_source(ticket, info_hash, torrent.title)
        return info_hash

    def _is_visible(self, torrent: RemoteTorrent) -> bool:
        if self._root is None or torrent.path is None:
            return False
        if torrent.path.startswith(f"{self._root}/"):
            return True
        log.info("torrent_elsewhere", path=torrent.path, downloads_root=self._root)
        return False

    async def _first_plan(
        self, ticket: OpenTicket, torrent: RemoteTorrent, info_hash: str, failure: AttemptFailed
    ) -> Process | GiveUp:
        mappings = await self._store.file_mappings(ticket)
        listed = await self._client.catalog_files(info_hash)
        paths = [str(m["path"]) for m in mappings] if listed is None else [p for p, _ in listed]
        if torrent.save_path is None or not paths:
            evidence = {"torrentino": failure.message}
            return GiveUp(failure=AttemptFailed(ErrorType.STORAGE, _CURE, evidence))
        chosen = choose(await self._store.wanted(ticket), paths, mappings)
        # Without a folder it is one file, and not what it is made of that could not be placed.
        if not chosen or not any("/" in path for path in paths):
            return GiveUp(failure=failure)
        suffix = pipeline_format(chosen)
        names = {f"{place:04}.{suffix}": path for place, path in enumerate(chosen, start=1)}
        return _plan(torrent.save_path, names, again=False)


def _plan(save_path: str, names: dict[str, str], *, again: bool) -> Process:
    suffixes: Sequence[str] = [name.rpartition(".")[2] for name in names]
    files = tuple(
        SourceFile(
            path=f"{save_path}/{path}", item_id=f"f{name.partition('.')[0]}", dest_filename=name
        )
        for name, path in names.items()
    )
    return Process(files=files, names=names, output_format=suffixes[0], again=again)


def is_process_job(ticket: OpenTicket, remote: RemoteTicket) -> bool:
    """Whether what the pipeline works on, or should, is what it was told by us."""
    at_work = remote.state in (RemoteState.CONVERTING, RemoteState.PLACING)
    return at_work and ticket.process_asked_at is not None
