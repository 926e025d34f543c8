"""What an item waits for when nothing is wrong, and until when at the latest."""

from __future__ import annotations

from shared.db.pool import Row
from shared.states import TERMINAL, Stage

_AT_WORK = {
    Stage.TICKETING: "Torrentino to take the ticket",
    Stage.SEARCHING: "Torrentino to find a torrent",
    Stage.NEEDS_APPROVAL: "an administrator has to approve a torrent at Torrentino",
    Stage.DOWNLOADING: "Torrentino to download the torrent",
    Stage.PROCESSING: "Torrentino to place the file",
    Stage.READY: "a fetcher-writer",
    Stage.FETCHING: "the file to be collected",
    Stage.NEEDS_CHOICE: "an administrator has to say which file of the torrent it is",
    Stage.VERIFYING: "the file to be decoded",
    Stage.CONVERTING: "the file to be converted",
}
# Of a download of our own.
_DIRECT = {
    Stage.TICKETING: "a release to be chosen and added",
    Stage.SEARCHING: "the torrent client to get the torrent's metadata",
    Stage.DOWNLOADING: "the torrent client to download it",
}
# How the reasons begin of what a ticketer has put off, which is no attempt.
_PUT_OFF = ("waits", "nothing was found")
_IN_THE_QUEUE = frozenset({Stage.QUEUED, Stage.RETRY_WAIT})
assert _AT_WORK.keys() | _IN_THE_QUEUE == set(Stage) - TERMINAL, "each stage waits for something"


def waits_for(row: Row) -> str | None:
    """In words; None when it waits for nothing any more."""
    if row["stage"] in _IN_THE_QUEUE:
        return _turn(row)
    if row["stage"] == Stage.READY and row["waits"]:
        return "the next try to collect the file"
    if row["way"] == "direct" and row["stage"] in _DIRECT:
        return _DIRECT[row["stage"]]
    return _AT_WORK.get(row["stage"])


def _turn(row: Row) -> str:
    if row["waits"]:
        reason = str(row["reason"] or "")
        return reason if reason.startswith(_PUT_OFF) else "the time of its next attempt"
    if row["tombstone"]:
        return "an earlier ticket of the track to stay cancelled at Torrentino"
    return "its turn"


def waits_until(row: Row, *, stall_timeout_s: float) -> int | None:
    """When something happens to it even if what it waits for does not come, in Unix seconds.

    None where there is no such time: it waits for its turn, for a person, or for nothing.
    """
    stage = Stage(row["stage"])
    if row["lease_until"] is not None:
        return int(row["lease_until"])
    if stage in (Stage.SEARCHING, Stage.DOWNLOADING, Stage.PROCESSING):
        return int(float(row["progressed_at"]) + stall_timeout_s)
    if stage in (*_IN_THE_QUEUE, Stage.READY) and row["waits"]:
        return int(row["due_at"])
    return None
