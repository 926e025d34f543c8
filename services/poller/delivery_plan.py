"""How the files of an ended ticket reach us.

A ticket that has ended is not believed before its torrent is whole: Torrentino takes the progress
of a check for that of the download, and then places zeros, or fails to place a folder. It is
followed until the torrent is whole.

Torrentino's pipeline takes a torrent for one file, so a ticket on a folder always fails. Then the
files are collected from the torrent's own folder, where we see it; otherwise the pipeline is told,
once, which files to place. What is recorded before it is told is what they will be called.
"""

from __future__ import annotations

import asyncio

import structlog

from services.poller.file_choice import choose, pipeline_format
from services.poller.store import OpenTicket
from services.poller.ticket_facts import TicketFacts
from services.poller.ticket_verdict import (
    Action,
    AskAgain,
    Collect,
    Ended,
    Follow,
    GiveUp,
    Process,
    only_blocked,
)
from shared.acquisition.protocol import Location
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
from shared.torrentino.model import RemoteTicket
from shared.torrentino.torrent import RemoteTorrent

log = structlog.get_logger()

# A request that changed nothing for so many intervals was lost.
_LOST_INTERVALS = 12
_BITRATE_KBPS = 320
_CHECKING = "checking"
_CURE = (
    "Torrentino's pipeline cannot place this torrent, and does not know its files: set"
    " TORRENTINO_DOWNLOADS_ROOT and TORRENTINO_DOWNLOADS_MOUNT, so that they can be taken from the"
    " torrent's own folder"
)


async def delivered(facts: TicketFacts, ended: Ended) -> Action:
    """What to do about a ticket that is completed, or could not be placed.

    Raises:
        Unavailable: Torrentino or its torrent client does not answer, or refuses us.
    """
    if facts.ticket.process_asked_at is not None:
        return await _processed(facts, ended)
    if await facts.source() in facts.ticket.blocked:
        return only_blocked(facts.ticket.blocked, withdraw=False)
    torrent = await facts.torrent()
    if torrent is None:
        return _without_torrent(facts, ended)
    return await _of_torrent(facts, ended, torrent)


def _without_torrent(facts: TicketFacts, ended: Ended) -> Action:
    if _early(facts):
        return AskAgain(reason="the torrent has left the client before it was whole")
    return _in_own_folder(facts.ticket, ended)


async def _of_torrent(facts: TicketFacts, ended: Ended, torrent: RemoteTorrent) -> Action:
    if not torrent.whole:
        return _until_whole(facts.remote, torrent)
    at = facts.asked.tickets.location(facts.ticket.begun, facts.seen, torrent)
    if at is not None and at.in_torrent:
        return Collect(at=at)
    if ended.failure is not None:
        return await _first_plan(facts, torrent, ended.failure)
    return _over_again(torrent) if _early(facts) else _in_own_folder(facts.ticket, ended)


def _early(facts: TicketFacts) -> bool:
    """Whether it had ended when it was read last: it is followed until the torrent is whole."""
    return facts.same_state


async def placed_again(
    facts: TicketFacts, otherwise: AskAgain | GiveUp
) -> Process | AskAgain | GiveUp | Follow:
    """Tell the pipeline once more what it was told; `otherwise` when the torrent is gone."""
    torrent, names = await facts.torrent(), await facts.processed_files()
    if torrent is None or torrent.save_path is None or not names:
        return otherwise
    if not torrent.whole:
        reason = f"the torrent is not whole any more ({torrent.state})"
        return Follow(stage=Stage.PROCESSING, reason=reason)
    return _plan(torrent.save_path, names, again=True)


async def ask(client: TorrentinoClient, ticket: OpenTicket, plan: Process) -> AttemptFailed | None:
    """Tell the pipeline; returns why the attempt is over, if it refuses for good.

    Raises:
        DependencyDown: Torrentino does not answer; it is told again later.
    """
    assert ticket.torrentino_id is not None, "it has ended at Torrentino"
    try:
        await client.process(
            ticket.torrentino_id,
            plan.files,
            dest_dir=ticket.dest_path,
            output_format=plan.output_format,
            bitrate_kbps=_BITRATE_KBPS,
        )
    except InvalidRequest as error:
        return AttemptFailed(ErrorType.STORAGE, str(error))
    except (OutcomeUnknown, Unknown, Conflict) as error:
        # What came of it shows when the ticket is read again.
        log.info("processing_unsettled", ticket=ticket.torrentino_id, detail=str(error))
    else:
        log.info("processing", ticket=ticket.torrentino_id, files=len(plan.files))
    return None


def _in_own_folder(ticket: OpenTicket, ended: Ended) -> Collect | GiveUp:
    if ended.failure is not None:
        return GiveUp(failure=ended.failure)
    return Collect(at=Location(path=ticket.dest_path, in_torrent=False))


async def _processed(facts: TicketFacts, ended: Ended) -> Action:
    """What came of what the pipeline was told."""
    ticket = facts.ticket
    if facts.remote.updated != ticket.process_after:
        return _in_own_folder(ticket, ended)
    assert ticket.process_asked_at is not None, "the pipeline was told"
    asked_s = (ticket.now - ticket.process_asked_at).total_seconds()
    if asked_s < _LOST_INTERVALS * facts.poll_interval_s:
        return Follow(stage=Stage.PROCESSING, reason="Torrentino is told which files to place")
    if ended.failure is None:
        lost = AskAgain(reason="what Torrentino has placed was not whole, and its torrent left")
        return await placed_again(facts, lost)
    return await placed_again(facts, GiveUp(failure=ended.failure))


async def _first_plan(
    facts: TicketFacts, torrent: RemoteTorrent, failure: AttemptFailed
) -> Process | GiveUp:
    listed, mappings = await facts.listed_files(), await facts.mappings()
    paths = [str(each["path"]) for each in mappings] if listed is None else listed
    if torrent.save_path is None or not paths:
        evidence = {"torrentino": failure.message}
        return GiveUp(failure=AttemptFailed(ErrorType.STORAGE, _CURE, evidence))
    tracks = [each.track for each in await facts.wanted()]
    # A long listing takes a second: not in the event loop.
    chosen = await asyncio.to_thread(choose, tracks, paths, mappings)
    # One file without a folder: what kept it from being placed does so again, unless it was not
    # whole, or Torrentino looked for it under another name.
    in_vain = not _early(facts) and f"{torrent.save_path}/{paths[0]}" == torrent.path
    if not chosen or (in_vain and not any("/" in path for path in paths)):
        return GiveUp(failure=failure)
    suffix = pipeline_format(chosen)
    names = {f"{place:04}.{suffix}": path for place, path in enumerate(chosen, start=1)}
    return _plan(torrent.save_path, names, again=False)


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


def _plan(save_path: str, names: dict[str, str], *, again: bool) -> Process:
    files = tuple(
        SourceFile(path=f"{save_path}/{path}", item_id=f"f{place:04}", dest_filename=name)
        for place, (name, path) in enumerate(sorted(names.items()), start=1)
    )
    return Process(
        files=files, names=names, output_format=pipeline_format(list(names.values())), again=again
    )
