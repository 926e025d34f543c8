"""What is done about a direct download: one list of questions, in their order; all are pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.poller.downloads_store import Download
from shared.acquisition.protocol import Location, Phase, Seen
from shared.states import Stage
from shared.torrentino.torrent import RemoteTorrent

# What was just added may be missing from a list or two, as what a restarted client reads again.
_MISSING_INTERVALS = 4
MISSING_LEAST_S = 10.0
# Without metadata no peer has it: that shows sooner than a lack of progress.
_NO_METADATA_SHARE = 6
# For as long an add that was cut short may still be at work.
ADDING_S = 90.0


@dataclass(frozen=True, kw_only=True)
class DownloadFacts:
    """A download as it is recorded, and as it was read."""

    download: Download
    seen: Seen[RemoteTorrent]
    # The torrent that it is known by instead, where the recorded one is not there.
    found: str | None
    # Where its files lie, if they do.
    at: Location | None
    stall_timeout_s: float
    poll_interval_s: float

    @property
    def torrent(self) -> RemoteTorrent:
        """The torrent as it was read."""
        assert self.seen.remote is not None, "what is gone is not asked about"
        return self.seen.remote


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The client is at work: the items show where."""

    stage: Stage
    reason: str


@dataclass(frozen=True, kw_only=True)
class Stalled:
    """It shows no progress, so the next release is tried; `shown` is what it was at."""

    reason: str
    idle_s: float
    shown: Progress


@dataclass(frozen=True, kw_only=True)
class Collect:
    """It is whole, and was so at the look before."""

    at: Location


@dataclass(frozen=True, kw_only=True)
class Missing:
    """The client does not show it, which may pass."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """It has ended without its files: added again, once; then the next release is tried."""

    how: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The torrent has this hash. Where that is another download's, `otherwise` is done."""

    info_hash: str
    otherwise: Missing | Lost


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """It was withdrawn, and nothing can come of it any more. `info_hash`: its torrent, if new."""

    info_hash: str | None


Observed: TypeAlias = Progress | Stalled | Collect
Action: TypeAlias = Observed | Missing | Lost | Identified | LetGo


def decide(facts: DownloadFacts) -> Action:
    """The one action."""
    for question in QUESTIONS:
        action = question(facts)
        if action is not None:
            return action
    return _progress(facts.download, facts.torrent)


def _withdrawn(facts: DownloadFacts) -> Action | None:
    download = facts.download
    if not download.withdrawing:
        return None
    if download.info_hash is None:
        there = facts.found is not None
    else:
        there = facts.seen.phase is not Phase.GONE
    if not there and _may_still_be_added(download):
        return Missing()
    return LetGo(info_hash=facts.found if download.info_hash is None else None)


def _may_still_be_added(download: Download) -> bool:
    if download.adding_at is None or download.state is not None:
        return False
    return (download.now - download.adding_at).total_seconds() < ADDING_S


def _gone(facts: DownloadFacts) -> Action | None:
    """The indexer may have told another hash than the torrent has."""
    if facts.seen.phase is not Phase.GONE:
        return None
    absent = _absent(facts)
    return Identified(info_hash=facts.found, otherwise=absent) if facts.found else absent


def _absent(facts: DownloadFacts) -> Missing | Lost:
    since = facts.download.missing_at
    missing_s = 0.0 if since is None else (facts.download.now - since).total_seconds()
    if missing_s < max(MISSING_LEAST_S, _MISSING_INTERVALS * facts.poll_interval_s):
        return Missing()
    return Lost(how="gone", reason="is gone from the torrent client")


def _in_error(facts: DownloadFacts) -> Action | None:
    if facts.seen.phase is not Phase.FAILED:
        return None
    return Lost(how="error", reason="is in error at the torrent client")


def _whole(facts: DownloadFacts) -> Action | None:
    """Seen so twice: what a client shows right after a check may still be of that check."""
    if facts.seen.phase is not Phase.WHOLE:
        return None
    if facts.download.whole_at is None or facts.at is None:
        return _progress(facts.download, facts.torrent)
    return Collect(at=facts.at)


def _stalled(facts: DownloadFacts) -> Action | None:
    download, torrent = facts.download, facts.torrent
    allowed_s, reason = facts.stall_timeout_s, "makes no progress"
    if not torrent.size_bytes:
        allowed_s, reason = allowed_s / _NO_METADATA_SHARE, "has no metadata, so no peer has it"
    if download.idle_s < allowed_s or torrent.state in ("queued", "checking"):
        return None
    shown = _progress(download, torrent)
    return Stalled(reason=reason, idle_s=download.idle_s, shown=shown)


def _progress(download: Download, torrent: RemoteTorrent) -> Progress:
    if torrent.size_bytes:
        return Progress(stage=Stage.DOWNLOADING, reason=f"downloads {download.title}")
    waits = f"waits for the metadata of {download.title}"
    return Progress(stage=Stage.SEARCHING, reason=waits)


Question: TypeAlias = Callable[[DownloadFacts], Action | None]

QUESTIONS: Sequence[Question] = (_withdrawn, _gone, _in_error, _whole, _stalled)
