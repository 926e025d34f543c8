"""How the files of an ended ticket reach us.

A ticket that has ended is not believed before its torrent is whole: Torrentino takes the progress
of a check for that of the download, and then places zeros, or fails to place a folder. It is
followed until the torrent is whole.

Torrentino's pipeline takes a torrent for one file, so a ticket on a folder always fails. Then the
torrent's own folder serves, where we see it; otherwise the pipeline is told, once, which files to
place. What is recorded before it is told is what they will be called.
"""

from __future__ import annotations

import structlog

from services.poller.file_choice import choose, pipeline_format
from services.poller.store import OpenTicket, Store
from services.poller.verdicts import (
    Action,
    AskAgain,
    Collect,
    Follow,
    GiveUp,
    Process,
    only_bad_sources,
)
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
_CHECKING = "checking"
# Of a name in a folder, in bytes.
_LONGEST_NAME = 255
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
    ) -> Action:
        """What to do about a ticket that is completed, or (`failure`) that could not be placed.

        Raises:
            Unavailable: Torrentino or its torrent client does not answer, or refuses us.
        """
        if ticket.process_asked_at is not None:
            return await self._processed(ticket, remote, failure)
        info_hash = ticket.info_hash or await self._unseen_source(ticket)
        if info_hash in ticket.blocked:
            return only_bad_sources(ticket.blocked, withdraw=False)
        torrent = await self._client.torrent(info_hash) if info_hash else None
        # It had ended when it was last seen, and is followed because the torrent was not whole.
        early = ticket.remote_state == remote.state
        if torrent is None or info_hash is None:
            return _without_torrent(failure, early=early)
        if not torrent.whole:
            return _until_whole(remote, torrent)
        return await self._of_whole(ticket, torrent, info_hash, failure, early=early)

    async def again(
        self, ticket: OpenTicket, otherwise: AskAgain | GiveUp
    ) -> Process | AskAgain | GiveUp | Follow:
        """Tell the pipeline once more what it was told; `otherwise` when the torrent is gone."""
        torrent = None if ticket.info_hash is None else await self._client.torrent(ticket.info_hash)
        names = await self._store.processed_files(ticket)
        if torrent is None or torrent.save_path is None or not names:
            return otherwise
        if not torrent.whole:
            reason = f"the torrent is not whole any more ({torrent.state})"
            return Follow(stage=Stage.PROCESSING, reason=reason)
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

    async def _of_whole(
        self,
        ticket: OpenTicket,
        torrent: RemoteTorrent,
        info_hash: str,
        failure: AttemptFailed | None,
        *,
        early: bool,
    ) -> Action:
        path = self._visible_path(torrent)
        if path is not None:
            return Collect(torrent_path=path, size_bytes=torrent.size_bytes)
        if failure is not None:
            return await self._first_plan(ticket, torrent, info_hash, failure, early=early)
        return _over_again(torrent) if early else Collect()

    async def _processed(
        self, ticket: OpenTicket, remote: RemoteTicket, failure: AttemptFailed | None
    ) -> Action:
        if remote.updated != ticket.process_after:
            return Collect() if failure is None else GiveUp(failure=failure)
        asked_s = (
            (ticket.now - ticket.process_asked_at).total_seconds() if ticket.process_asked_at else 0
        )
        if asked_s < self._lost_s:
            return Follow(stage=Stage.PROCESSING, reason="Torrentino is told which files to place")
        if failure is None:
            lost = AskAgain(reason="what Torrentino has placed was not whole, and its torrent left")
            return await self.again(ticket, lost)
        return await self.again(ticket, GiveUp(failure=failure))

    async def _unseen_source(self, ticket: OpenTicket) -> str | None:
        """The torrent of a ticket that downloaded between two looks, as far as traces tell."""
        assert ticket.torrentino_id is not None, "it has ended at Torrentino"
        path = await self._client.conversion_input(ticket.torrentino_id)
        if path is None:
            return None
        called = [each for each in await self._client.torrents() if path in _named_paths(each)]
        if len(called) != 1 or called[0].info_hash is None:
            return None
        await self._store.remember_source(ticket, called[0].info_hash, called[0].title)
        return called[0].info_hash

    def _visible_path(self, torrent: RemoteTorrent) -> str | None:
        """The place of its files, as Torrentino sees it; None where we do not see it.

        The last name may not be that of the files; it is always one that could be.
        """
        if self._root is None or torrent.save_path is None:
            return None
        path = f"{torrent.save_path}/{_possible_name(torrent)}"
        if path.startswith(f"{self._root}/"):
            return path
        log.info("torrent_elsewhere", path=path, downloads_root=self._root)
        return None

    async def _first_plan(
        self,
        ticket: OpenTicket,
        torrent: RemoteTorrent,
        info_hash: str,
        failure: AttemptFailed,
        *,
        early: bool,
    ) -> Process | GiveUp:
        mappings = await self._store.file_mappings(ticket)
        listed = await self._client.catalog_files(info_hash)
        paths = [str(m["path"]) for m in mappings] if listed is None else [p for p, _ in listed]
        if torrent.save_path is None or not paths:
            evidence = {"torrentino": failure.message}
            return GiveUp(failure=AttemptFailed(ErrorType.STORAGE, _CURE, evidence))
        chosen = choose(await self._store.wanted(ticket), paths, mappings)
        # One file without a folder: what kept it from being placed does so again, unless it was
        # not whole, or was looked for under another name.
        in_vain = not early and f"{torrent.save_path}/{paths[0]}" == torrent.path
        if not chosen or (in_vain and not any("/" in path for path in paths)):
            return GiveUp(failure=failure)
        suffix = pipeline_format(chosen)
        names = {f"{place:04}.{suffix}": path for place, path in enumerate(chosen, start=1)}
        return _plan(torrent.save_path, names, again=False)


def _without_torrent(failure: AttemptFailed | None, *, early: bool) -> Action:
    if early:
        return AskAgain(reason="the torrent has left the client before it was whole")
    return Collect() if failure is None else GiveUp(failure=failure)


def _until_whole(remote: RemoteTicket, torrent: RemoteTorrent) -> Follow:
    # A check's progress is not the download's.
    checking = torrent.state == _CHECKING
    pct = None if checking else round(100.0 * min(max(torrent.progress, 0.0), 1.0), 1)
    reason = f"Torrentino: {remote.state}, but the torrent is not whole yet ({torrent.state})"
    return Follow(stage=Stage.DOWNLOADING, reason=reason, progress_pct=pct)


def _over_again(torrent: RemoteTorrent) -> Process | AskAgain:
    """Have placed again what was placed before it was whole, over what lies there."""
    if torrent.path is None or torrent.save_path is None:
        return AskAgain(reason="Torrentino has placed what was not whole yet")
    name = torrent.path.rpartition("/")[2]
    return _plan(torrent.save_path, {f"{name}.converted": name}, again=False)


def _named_paths(torrent: RemoteTorrent) -> set[str]:
    """What Torrentino takes for the place of its data; a title may be shortened or redacted."""
    return {path for path in (torrent.path, f"{torrent.save_path}/{torrent.title}") if path}


def _possible_name(torrent: RemoteTorrent) -> str:
    if torrent.path is not None:
        name = torrent.path.rpartition("/")[2]
    else:
        name = "".join(c if c.isprintable() else "_" for c in torrent.title.replace("/", "_"))
    shortened = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return shortened if shortened not in ("", ".", "..") else "_"


def _plan(save_path: str, names: dict[str, str], *, again: bool) -> Process:
    files = tuple(
        SourceFile(path=f"{save_path}/{path}", item_id=f"f{place:04}", dest_filename=name)
        for place, (name, path) in enumerate(sorted(names.items()), start=1)
    )
    return Process(
        files=files, names=names, output_format=pipeline_format(list(names.values())), again=again
    )


def is_process_job(ticket: OpenTicket, remote: RemoteTicket) -> bool:
    """Whether what the pipeline works on, or should, is what it was told by us."""
    at_work = remote.state in (RemoteState.CONVERTING, RemoteState.PLACING)
    return at_work and ticket.process_asked_at is not None
