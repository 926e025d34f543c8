"""Named places between two effects, at which the crash search kills the process.

`reached` does nothing in a service: there is no setting that could make it do more. Only
`tests/crash` installs a hook, in the processes that it starts.
"""

from __future__ import annotations

from collections.abc import Callable

# What has happened | what has not. "uncommitted" means that the crash undoes it.
POINTS: dict[str, str] = {
    # ingest, and the consumers of ingest and watchdog
    "consumer.received": "a message is taken from the stream | nothing is decided",
    "consumer.handled": "a message's effect is committed | it is not acknowledged",
    "consumer.acked": "it is acknowledged | nothing",
    "consumer.buried": "a message is in the dead stream | it is not acknowledged",
    "ingest.looked": "the disk was looked at | nothing is decided",
    "ingest.requested": "the request is noted, uncommitted | no item is queued",
    "ingest.queued": "items are queued, uncommitted | limits are not checked, no event is written",
    "ingest.decided": "all of a request is written | not committed",
    "ingest.committed": "a request is committed | nobody is woken",
    "ingest.answering": "what a route does is committed | the caller has no answer",
    "ingest.scan_ordered": "a scan is committed | nobody is woken, the caller has no answer",
    "withdraw.noted": "the requester is withdrawn, uncommitted | the item goes on",
    "withdraw.ended": "items are ended, uncommitted | their tickets are not withdrawn",
    "withdraw.committed": "a withdrawal is committed | nobody is woken",
    "retry.committed": "a FAILED item is queued again | nobody is woken, the caller has no answer",
    "decision.committed": "a person's decision is committed | nobody is woken",
    # ticketer
    "ticketer.intended": "intents are inserted, uncommitted | their items are not claimed",
    "ticketer.claimed": "items and intents are committed | Torrentino is not asked",
    "ticketer.joined": "items have joined the ticket of their album | nobody is woken",
    "ticketer.found": "the ticket of an earlier try is found | it is not recorded",
    "ticketer.posting": "the intent is committed | the ticket is not asked for",
    "ticketer.posted": "Torrentino has made the ticket | its id is not recorded",
    "ticketer.recording": "the item's move is written, uncommitted | the ticket's is not",
    "ticketer.recorded": "the ticket is recorded | nobody is woken",
    "ticketer.handing_back": "the outcome is unknown | the item is not handed back",
    "ticketer.refused": "the attempt is failed, uncommitted | the intent is not closed",
    # ticketer, for downloads of our own
    "direct.intended": "intents are inserted, uncommitted | their items are not claimed",
    "direct.claimed": "items and intents are committed | nothing is searched for",
    "direct.searching": "that a search is made is committed | the indexers are not asked",
    "direct.searched": "the indexers have answered | the answer is not remembered",
    "direct.remembered": "the answer is committed | nothing is chosen",
    "direct.chosen": "the chosen release is committed | it is not added",
    "direct.found": "an earlier try's intent is found | its torrent is not looked for",
    "direct.adding": "the leases are long enough | the torrent is not added",
    "direct.added": "the torrent is added | its hash is not recorded",
    "direct.recording": "the items' moves are written, uncommitted | the download's is not",
    "direct.recorded": "the download is recorded | nobody is woken",
    "direct.blocked": "a release that is not taken is blocked, committed | no other one is tried",
    "direct.handing_back": "the outcome is unknown | the items are not handed back",
    "direct.refused": "the attempts are failed, uncommitted | the intent is not closed",
    # poller
    "torrents.listed": "the client's list is read, downloads are taken | nothing is written",
    "torrents.observed": "a download's progress is written, uncommitted | its items are not moved",
    "torrents.collected": "a whole download is closed, uncommitted | nobody is woken",
    "torrents.lost": "a lost download is closed, uncommitted | nobody is woken",
    "torrents.stalled": "a stalled download is closed, uncommitted | nobody is woken",
    "torrents.let_go": "a withdrawn download is closed | its torrent is not removed",
    "leftovers.removed": "a torrent of ours that nobody needs is removed | that is not noted",
    "leftovers.noted": "that is noted | nothing",
    "poller.claimed": "tickets are taken to be looked at | nothing is read",
    "poller.read": "tickets are read | nothing is written",
    "poller.observed": "a ticket's progress is written, uncommitted | its items are not moved",
    "poller.applied": "a ticket and its items are written | not committed",
    "poller.moved": "a ticket and its items are committed | nobody is woken",
    "poller.cancelling": "a withdrawn ticket is read | it is not cancelled",
    "poller.cancelled": "a ticket is cancelled | its torrent is not removed",
    "poller.torrent_removed": "its torrent is removed | that is not noted",
    "poller.rested": "a ticket was seen at rest, noted | it is not closed",
    "poller.let_go": "a withdrawn ticket is closed | nobody is woken",
    "poller.orphans": "tickets without items are withdrawn | strays are not looked for",
    "poller.processing": "what its pipeline is to place is committed | Torrentino is not told",
    "poller.processed": "Torrentino's pipeline is told | nothing is looked at",
    "tidying.torrent_removed": "a torrent that is done with is removed | its ticket is not",
    "tidying.ticket_removed": "a ticket that is done with is removed | that is not noted",
    "tidying.noted": "that is noted | nothing",
    # fetcher-writer
    "fetcher.claimed": "items are claimed | no work has begun",
    "fetcher.looked": "the name was looked at | what was found is not used",
    "fetcher.moved_aside": "a broken file is moved aside, the row locked | not committed",
    "fetcher.adopting": "a whole file is in place | the item is not completed",
    "fetcher.adopted": "an item is completed with a file in place | nobody is woken",
    "fetcher.sampled": "a file is collected to be measured, on disk | nothing is known of it",
    "fetcher.assigned": "it is known which file is which track | the file is not collected",
    "fetcher.missed": "an item is queued for another ticket, committed | nobody is woken",
    "fetcher.blocked": "a release is blocked and its item moved on, committed | nobody is woken",
    "fetcher.held": "an item is left to a person, committed | nothing",
    "fetcher.staged": "the file is under its temporary name, on disk | that is not said",
    "fetcher.verifying": "`verifying` is committed | nothing is decoded",
    "fetcher.decoded": "the file is decoded | the row is not locked",
    "fetcher.converting": "`converting` is committed | nothing is converted",
    "fetcher.converted": "the converted file is on disk and verified | the row is not locked",
    "fetcher.source_kept": "the file it was made from is put aside, the row locked | no name yet",
    "fetcher.locked": "the row is locked by its fence | the file has no name",
    "fetcher.named": "the file has its name, on disk | the item is not completed",
    "fetcher.completed": "all of the completion is written | not committed",
    "fetcher.committed": "the item is completed | nothing is published, the folder is there",
    "fetcher.failing": "the attempt is over | that is not written",
    "fetcher.failed": "the attempt is failed, committed | nobody is woken",
    "fetcher.ending": "work on an item is over | its temporary file may be there",
    "cleaning.folder_removed": "a ticket's folder is removed | that is not noted",
    "cleaning.noted": "that is noted | nothing",
    "download.created": "the temporary file is made, empty | nothing is fetched",
    "download.piece": "a piece of the file is written | not all of it",
    "download.written": "all of the file is written | it is not flushed to disk",
    "media.linked": "the temporary name is linked | it is not flushed to disk",
    "media.created": "the temporary file is made, empty | nothing is copied",
    "media.copying": "a part of the file is copied | not all of it",
    "media.copied": "all of the file is copied | it is not flushed to disk",
    "media.folders": "the folders of the final name are made | the file has no name",
    "media.named": "the file has its final name | the temporary one is there, nothing is flushed",
    "media.unlinked": "the temporary name is removed | the folder is not flushed to disk",
    "media.marked": "the media root is marked | the database does not know it",
    "ledger.completed": "the item is completed, uncommitted | the ledger has no row",
    "ledger.recorded": "the ledger has its row, uncommitted | there is no audio.ready",
    "ledger.ready": "audio.ready is written, uncommitted | album requests are not settled",
    # the relay of every service
    "relay.taken": "events are locked | not published",
    "relay.published": "events are published | not marked",
    "relay.marked": "events are marked | not committed",
    # reaper
    "reaper.gave_back": "the items of a dead worker are given back | nobody is woken",
    "reaper.temp_removed": "one temporary file is removed | others are not",
    "reaper.pruning": "old items are deleted | their requests are not",
    # watchdog
    "watchdog.claimed": "a scan is claimed | not begun",
    "watchdog.looked": "a page of the catalog was looked up | nothing is written",
    "watchdog.queued": "the page's tracks are queued, uncommitted | the scan is where it was",
    "watchdog.page": "a page is committed | nobody is woken",
    "watchdog.through": "all pages are committed | the scan is not ended",
    "watchdog.ended": "the scan is ended | nothing",
}

_hook: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Tell the crash search, if it runs us, that this place of `POINTS` is reached."""
    if _hook is not None:
        _hook(point)


def install(hook: Callable[[str], None]) -> None:
    """Let `hook` be called at every point, in whichever thread; for the crash search only."""
    global _hook  # noqa: PLW0603 (there is one process to kill)
    _hook = hook
