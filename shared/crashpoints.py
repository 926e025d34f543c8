"""Named points between two effects, at which the crash search kills the process.

`reached` does nothing in a service, and no setting changes that. Only `tests/crash` installs a
hook, in the processes that it starts.
"""

from __future__ import annotations

from collections.abc import Callable

# What has happened | what has not. "uncommitted": the crash undoes it.
POINTS: dict[str, str] = {
    # ingest, and the consumers of ingest and watchdog
    "consumer.received": "a message is taken from the stream | nothing is decided",
    "consumer.handled": "a message's effect is committed | it is not acknowledged",
    "consumer.acked": "it is acknowledged | nothing",
    "consumer.rejected": "the sender of a malformed message is told | the message is not put aside",
    "consumer.buried": "a message is in the dead stream | it is not acknowledged",
    "ingest.looked": "the disk is checked | nothing is decided",
    "ingest.noted": "problems of named files are committed | the request is not decided",
    "ingest.requested": "the request is recorded, uncommitted | no item is queued",
    "ingest.queued": "items are queued, uncommitted | limits are not checked, no event is written",
    "ingest.decided": "all of a request is written | not committed",
    "ingest.committed": "a request is committed | no wake-up is sent",
    "ingest.answering": "what a route does is committed | the caller has no answer",
    "ingest.scan_ordered": "a scan is committed | no wake-up is sent, no answer",
    "withdraw.noted": "the requester is withdrawn, uncommitted | the item is not ended",
    "withdraw.ended": "items are ended, uncommitted | their tickets are not withdrawn",
    "withdraw.committed": "a withdrawal is committed | no wake-up is sent",
    "retry.committed": "a FAILED item is queued again | no wake-up is sent, no answer",
    "decision.committed": "an administrator's decision is committed | no wake-up is sent",
    "decision.released": "a refused file is released, committed | no wake-up is sent",
    "decision.lifted": "a block is lifted, committed | no wake-up is sent",
    # ticketer
    "ticketer.intended": "intents are inserted, uncommitted | their items are not claimed",
    "ticketer.claimed": "items and intents are committed | Torrentino is not called",
    "ticketer.listed": "the client's torrents are noted | the ticket is not asked for",
    "ticketer.joined": "items have joined the ticket of their album | no wake-up is sent",
    "ticketer.found": "the ticket of an earlier attempt is found | it is not recorded",
    "ticketer.posting": "the intent is committed | the ticket is not created",
    "ticketer.posted": "Torrentino has created the ticket | its id is not recorded",
    "ticketer.recording": "the item's move is written, uncommitted | the ticket's is not",
    "ticketer.recorded": "the ticket is recorded | no wake-up is sent",
    "ticketer.handing_back": "the outcome is unknown | the item is not handed back",
    "ticketer.refused": "the attempt is failed, uncommitted | the intent is not closed",
    # ticketer, direct acquisition
    "direct.intended": "intents are inserted, uncommitted | their items are not claimed",
    "direct.claimed": "items and intents are committed | nothing is searched for",
    "direct.searching": "the search is counted, committed | the indexers are not queried",
    "direct.searched": "the indexers have answered | the answer is not stored",
    "direct.remembered": "the answer is committed | nothing is chosen",
    "direct.chosen": "the chosen release is committed | it is not added",
    "direct.found": "the intent of an earlier attempt is found | its torrent is not searched for",
    "direct.adding": "the leases are prolonged | the torrent is not added",
    "direct.added": "the torrent is added | its hash is not recorded",
    "direct.recording": "the items' moves are written, uncommitted | the download's is not",
    "direct.recorded": "the download is recorded | no wake-up is sent",
    "direct.blocked": "a refused release is blocked, committed | no other one is tried",
    "direct.handing_back": "the outcome is unknown | the items are not handed back",
    "direct.refused": "the attempts are failed, uncommitted | the intent is not closed",
    # poller
    "torrents.listed": "the client's list is read, downloads are claimed | nothing is written",
    "torrents.observed": "a download's progress is written, uncommitted | its items are not moved",
    "torrents.collected": "a whole download is closed, uncommitted | no wake-up is sent",
    "torrents.lost": "a lost download is closed, uncommitted | no wake-up is sent",
    "torrents.stalled": "a stalled download is closed, uncommitted | no wake-up is sent",
    "torrents.let_go": "a withdrawn download is closed | its torrent is not removed",
    "leftovers.removed": "a torrent that no item needs is removed | that is not recorded",
    "leftovers.noted": "that is recorded | nothing",
    "poller.claimed": "due tickets are taken | nothing is read",
    "poller.read": "tickets are read | nothing is written",
    "poller.observed": "a ticket's progress is written, uncommitted | its items are not moved",
    "poller.applied": "a ticket and its items are written | not committed",
    "poller.moved": "a ticket and its items are committed | no wake-up is sent",
    "poller.cancelling": "a withdrawn ticket is read | it is not cancelled",
    "poller.cancelled": "a ticket is cancelled | its torrent is not removed",
    "poller.torrent_removed": "its torrent is removed | that is not recorded",
    "poller.rested": "a ticket is recorded as at rest | it is not closed",
    "poller.let_go": "a withdrawn ticket is closed | no wake-up is sent",
    "poller.orphans": "tickets without items are withdrawn | strays are not searched for",
    "poller.processing": "the files for the pipeline are committed | Torrentino is not called",
    "poller.processed": "Torrentino's pipeline is called | the ticket is not polled",
    "tidying.torrent_removed": "a torrent that is not needed is removed | its ticket is not",
    "tidying.ticket_removed": "a ticket that is not needed is removed | that is not recorded",
    "tidying.noted": "that is recorded | nothing",
    # fetcher-writer
    "fetcher.claimed": "items are claimed | no work has begun",
    "fetcher.looked": "the final name is checked | the result is not used",
    "fetcher.moved_aside": "a broken file is moved aside, the row locked | not committed",
    "fetcher.adopting": "a whole file is in place | the item is not completed",
    "fetcher.adopted": "an item is completed with a file in place | no wake-up is sent",
    "fetcher.sampled": "a file is collected to be measured, on disk | it is not measured",
    "fetcher.assigned": "files are assigned to tracks | the file is not collected",
    "fetcher.missed": "an item is queued for another ticket, committed | no wake-up is sent",
    "fetcher.blocked": "a release is blocked and its item moved, committed | no wake-up is sent",
    "fetcher.held": "an item needs a choice, committed | nothing",
    "fetcher.staged": "the file has its temporary name, on disk | the stage is not written",
    "fetcher.verifying": "`verifying` is committed | nothing is decoded",
    "fetcher.decoded": "the file is decoded | the row is not locked",
    "fetcher.converting": "`converting` is committed | nothing is converted",
    "fetcher.converted": "the converted file is on disk and verified | the row is not locked",
    "fetcher.source_kept": "the original file is kept, the row locked | the file has no name",
    "fetcher.locked": "the row is locked by its fence | the file has no name",
    "fetcher.named": "the file has its name, on disk | the item is not completed",
    "fetcher.completed": "all of the completion is written | not committed",
    "fetcher.committed": "the item is completed | nothing is published, the folder is not removed",
    "fetcher.kept": "a refused file is with the kept ones, on disk | it is not recorded",
    "fetcher.accepted": "a released file is measured | the row is not locked",
    "fetcher.failing": "the attempt is over | the failure is not written",
    "fetcher.failed": "the attempt is failed, committed | no wake-up is sent",
    "fetcher.ending": "work on an item is over | its temporary file may be left",
    "cleaning.folder_removed": "a ticket's folder is removed | that is not recorded",
    "cleaning.noted": "that is recorded | nothing",
    "download.created": "the temporary file is created, empty | nothing is transferred",
    "download.piece": "a piece of the file is written | the rest is not",
    "download.written": "all of the file is written | it is not flushed to disk",
    "media.linked": "the temporary name is linked | it is not flushed to disk",
    "media.created": "the temporary file is created, empty | nothing is copied",
    "media.copying": "a part of the file is copied | the rest is not",
    "media.copied": "all of the file is copied | it is not flushed to disk",
    "media.folders": "the folders of the final name are created | the file has no name",
    "media.named": "the file has its final name | the temporary name is not removed",
    "media.unlinked": "the temporary name is removed | the folder is not flushed to disk",
    "media.marked": "the media root is marked | the database has no record of it",
    "ledger.completed": "the item is completed, uncommitted | the ledger has no row",
    "ledger.recorded": "the ledger has its row, uncommitted | there is no audio.ready",
    "ledger.ready": "audio.ready is written, uncommitted | album requests are not settled",
    # bridge, at the catalog server
    "server.taken": "requests of the server are recorded | not announced",
    "server.listed": "a complete listing is counted | nothing",
    "server.announcing": "the announcements are due again later, committed | not published",
    "server.announced": "requests are published | ingest has not decided",
    "server.decided": "what ingest decided is recorded | nothing",
    "server.ending": "the deletion there is intended, committed | not asked for",
    "server.deleted": "a request is deleted there | that is not recorded",
    "server.ended": "a request is ended, recorded | nothing",
    "server.receipt_intended": "the receipt is intended, committed | nothing is uploaded",
    "server.receipt_uploading": "an upload is recorded | not made",
    "server.receipt_uploaded": "the receipt is uploaded | its job is not recorded",
    "server.receipt_resolving": "its job waits for an answer | it is not answered",
    "server.receipt_resolved": "the answer is given | the request is not recorded as ended",
    "server.availability_asking": "the run is recorded as asked for | not asked for",
    "server.availability_asked": "the run is asked for | its end is not recorded",
    "server.availability_ran": "the run is recorded | nothing",
    # the relay of every service
    "relay.taken": "events are locked | not published",
    "relay.published": "events are published | not marked",
    "relay.marked": "events are marked | not committed",
    # reaper
    "reaper.gave_back": "the items of a dead worker are handed back | no wake-up is sent",
    "reaper.temp_removed": "one temporary file is removed | others are not",
    "reaper.kept_removed": "one refused file is removed | others are not",
    "reaper.expired": "rows of refused files are deleted | the files are not removed",
    "reaper.pruning": "old items are deleted | their requests are not",
    # bridge
    "bridge.checked": "the files of rows are checked | nothing is written to the catalog",
    "bridge.set": "audio_uri is set in the catalog, uncommitted | the rest of the rows are not",
    "bridge.written": "audio_uri is committed in the catalog | the ledger has no record of it",
    "bridge.marked": "the ledger says that the files are published | nothing",
    # watchdog
    "watchdog.claimed": "a scan is claimed | it is not started",
    "watchdog.looked": "a page of the catalog is checked | nothing is written",
    "watchdog.queued": "the page's tracks are queued, uncommitted | the scan is not advanced",
    "watchdog.page": "a page is committed | no wake-up is sent",
    "adopt.decoded": "a file that the ledger lacks is decoded | it is not recorded",
    "adopt.recorded": "the ledger has an adopted file, uncommitted | it is not counted",
    "adopt.committed": "an adopted file is committed | no wake-up is sent",
    "watchdog.through": "all pages are committed | the scan is not ended",
    "watchdog.ended": "the scan is ended | nothing",
}

_hook: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Report to the crash search, if one runs, that this point of `POINTS` is reached."""
    if _hook is not None:
        _hook(point)


def install(hook: Callable[[str], None]) -> None:
    """Call `hook` at every point, in the thread that reaches it; for the crash search only."""
    global _hook  # noqa: PLW0603 (there is one process to kill)
    _hook = hook
