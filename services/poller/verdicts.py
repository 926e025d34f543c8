"""What each state of a Torrentino ticket means for the items it serves.

The table covers all 14 states; a ticket that is gone and a state that nobody knows have a rule
too. Texts of failures are classified here because Torrentino gives no codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from shared.errors import AttemptFailed, ErrorType
from shared.states import Stage
from shared.torrentino.engine import SourceFile
from shared.torrentino.model import RemoteState, RemoteTicket, mappings_of


@dataclass(frozen=True, kw_only=True)
class Follow:
    """Torrentino is at work, or waits for a person: the items show where."""

    stage: Stage
    # What a person should know beyond the ticket's state.
    reason: str | None = None
    # Of the torrent, where the ticket no longer tells it.
    progress_pct: float | None = None


@dataclass(frozen=True, kw_only=True)
class Collect:
    """The files are there: in the ticket's folder, or at `torrent_path` in the torrent's own.

    Where the torrent's name is not that of its files, they are the entry beside that path whose
    sizes sum up to `size_bytes`.
    """

    torrent_path: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Gather:
    """The torrent is there, but the pipeline could not convert or place it: mostly a folder."""

    failure: AttemptFailed


@dataclass(frozen=True, kw_only=True)
class Process:
    """The pipeline is to be told which files to place; `names`: new name -> path in the torrent.

    `again`: it was told before, and nothing came of it.
    """

    files: tuple[SourceFile, ...]
    names: dict[str, str] = field(hash=False)
    output_format: str
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """The attempt is over. `withdraw`: the ticket may go on, and has to be cancelled."""

    failure: AttemptFailed
    withdraw: bool = False


@dataclass(frozen=True, kw_only=True)
class AskAgain:
    """Nobody's attempt failed, but this ticket leads nowhere: the items want a new one."""

    reason: str
    withdraw: bool = False


@dataclass(frozen=True, kw_only=True)
class GoOn:
    """This kind of ticket serves the items no further; the other kind may. The ticket is ended.

    `failure` ends the attempt of those whose other kind of ticket found nothing before.
    """

    ask_next: Literal["track", "album"]
    reason: str
    failure: AttemptFailed | None = None


@dataclass(frozen=True, kw_only=True)
class NextSource:
    """This torrent is blocked for all items: Torrentino is to go on with its next candidate."""

    info_hash: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A state that we do not know: keep looking until it changes or stalls."""


Action: TypeAlias = (
    Follow | Collect | Gather | Process | GiveUp | AskAgain | GoOn | NextSource | Wait
)

GONE = AskAgain(reason="the ticket no longer exists at Torrentino")

_FOLLOW = {
    RemoteState.PENDING: Stage.SEARCHING,
    RemoteState.ACQUIRING: Stage.SEARCHING,
    RemoteState.AUTO_APPROVED: Stage.SEARCHING,
    RemoteState.APPROVED: Stage.SEARCHING,
    RemoteState.PENDING_RETRY: Stage.SEARCHING,
    RemoteState.NEEDS_APPROVAL: Stage.NEEDS_APPROVAL,
    RemoteState.DOWNLOADING: Stage.DOWNLOADING,
    RemoteState.CONVERTING: Stage.PROCESSING,
    RemoteState.PLACING: Stage.PROCESSING,
}

# Failures of the pipeline: the torrent itself is there.
_NOT_PLACED = ("conversion failed", "placement failed")
# The beginnings of `failed.error`, with what they say about the source or about Torrentino.
_FAILURES = (
    ("all ", ErrorType.CONNECTION),
    ("download stalled", ErrorType.STALLED),
    ("conversion failed", ErrorType.CORRUPTION),
    ("placement failed", ErrorType.STORAGE),
    ("failed to start pipeline", ErrorType.STORAGE),
)
# Of Torrentino's own client: what it says when that does not answer. A dead link has other words.
_CLIENT_AWAY = re.compile(
    r"all \d+ candidates failed to add\b.*\bapi error: error sending request", re.DOTALL
)
_NOTHING_FOUND = ("no suitable candidates found", "no candidates found")
_CANNOT_SEARCH = ("search failed:", "llm error:")
_REFUSED = (
    "no queries generated",
    "query building failed:",
    "configuration error:",
    "llm not configured",
)


NO_HASH = (
    "Torrentino downloads this without knowing which torrent it is (empty info-hash): what it"
    " completes may be another torrent's, so nothing of it is collected. It goes on by itself when"
    " Torrentino takes a candidate with a hash; or cancel the ticket and retry"
)

NO_TRACKERS = (
    "what was approved has no trackers, which Torrentino loses with an approval: unless the torrent"
    " client has DHT, it finds nobody. Cancel the item and retry it, or let us search"
    " (ACQUISITION=direct)"
)
# A magnet link is resolved within a minute, if at all.
_RESOLVED_S = 120.0
_TRACKER = re.compile(r"[?&]tr(?:\.\d+)?=", re.IGNORECASE)


def action_for(remote: RemoteTicket) -> Action:
    """What to do about a ticket in this state."""
    if remote.state in _FOLLOW:
        return Follow(stage=_FOLLOW[RemoteState(remote.state)])
    ending = _ENDINGS.get(remote.state)
    return Wait() if ending is None else ending(remote.reason or "no reason given")


def distrusted(remote: RemoteTicket) -> Action | None:
    """What to do about a ticket whose download had no hash; None: as about any other.

    It is held while it downloads so, for Torrentino may yet take a candidate with a hash. When it
    ends, the attempt does: what it brought is not looked at.
    """
    match remote.state:
        case RemoteState.DOWNLOADING if remote.empty_hash:
            return Follow(stage=Stage.NEEDS_APPROVAL, reason=NO_HASH)
        case RemoteState.CONVERTING | RemoteState.PLACING:
            return Follow(stage=Stage.NEEDS_APPROVAL, reason=NO_HASH)
        case RemoteState.COMPLETED | RemoteState.FAILED:
            if not isinstance(action := action_for(remote), Collect | Gather):
                return action
            message = "Torrentino found only a torrent without a hash, which cannot be trusted"
            return GiveUp(failure=AttemptFailed(ErrorType.NOT_FOUND, message))
    return None


def without_trackers(remote: RemoteTicket, *, idle_s: float) -> Follow | None:
    """What to tell of a download that began without trackers, as after an approval; None: it has.

    `idle_s`: for how long the ticket has shown the same.
    """
    if remote.state != RemoteState.DOWNLOADING or not _lacks_trackers(remote):
        return None
    alone = not remote.progress_pct and idle_s >= _RESOLVED_S
    # Said in either case: the warning does not outlive what it warns of.
    reason = NO_TRACKERS if alone else f"Torrentino: {remote.state}"
    return Follow(stage=Stage.DOWNLOADING, reason=reason)


def _lacks_trackers(remote: RemoteTicket) -> bool:
    """Whether its links are known, and none of them leads to a tracker."""
    candidates = mappings_of(remote.raw_state.get("candidates"))
    place = remote.raw_state.get("candidate_idx")
    if not isinstance(place, int) or not 0 <= place < len(candidates):
        return False
    magnet = candidates[place].get("magnet_uri")
    has_file = bool(candidates[place].get("torrent_url"))
    return isinstance(magnet, str) and not has_file and not _TRACKER.search(magnet)


def is_nothing_found(remote: RemoteTicket) -> bool:
    """Whether the search went well and found nothing."""
    reason = (remote.reason or "").lower()
    return remote.state == RemoteState.ACQUISITION_FAILED and reason.startswith(_NOTHING_FOUND)


_CHOOSING = frozenset({RemoteState.NEEDS_APPROVAL, RemoteState.AUTO_APPROVED, RemoteState.APPROVED})


def refusal_of(
    remote: RemoteTicket, *, seen: str | None, blocked: frozenset[str]
) -> GiveUp | NextSource | None:
    """What to do about a ticket that may serve a blocked torrent; None: it does not.

    `blocked` are those that are blocked for all of the ticket's items.
    `seen` is the torrent that the ticket was last seen to download; once it is completed, the
    ticket no longer tells.
    """
    if not blocked:
        return None
    others = remote.offered - blocked
    match remote.state:
        case RemoteState.COMPLETED | RemoteState.FAILED if seen in blocked and (
            isinstance(action_for(remote), Collect | Gather)
        ):
            return only_bad_sources(blocked, withdraw=False)
        case RemoteState.DOWNLOADING if remote.info_hash in blocked:
            assert remote.info_hash is not None, "nothing that is None is blocked"
            if others:
                return NextSource(info_hash=remote.info_hash)
            return only_bad_sources(blocked, withdraw=True)
        case state if state in _CHOOSING and remote.offered and not others:
            return only_bad_sources(blocked, withdraw=True)
    return None


def only_bad_sources(blocked: frozenset[str], *, withdraw: bool) -> GiveUp:
    """As when nothing was found: what was found is known not to be it."""
    failure = AttemptFailed(
        ErrorType.NOT_FOUND,
        "Torrentino has only sources that gave broken audio before or lack the track; a person may"
        " find and approve another candidate at Torrentino",
        {"blocked": sorted(blocked)},
    )
    return GiveUp(failure=failure, withdraw=withdraw)


def _acquisition_failed(reason: str) -> Action:
    text = reason.lower()
    if text.startswith(_CANNOT_SEARCH):
        return AskAgain(reason=f"Torrentino cannot search: {reason}", withdraw=True)
    if text.startswith(_NOTHING_FOUND):
        failure = AttemptFailed(ErrorType.NOT_FOUND, f"no torrent found: {reason}")
    elif text.startswith(_REFUSED):
        failure = AttemptFailed(ErrorType.REJECTED, f"Torrentino cannot search this: {reason}")
    else:
        failure = AttemptFailed(ErrorType.UNKNOWN, f"Torrentino found nothing to use: {reason}")
    return GiveUp(failure=failure, withdraw=True)


def _failed(reason: str) -> Action:
    text = reason.lower()
    if _CLIENT_AWAY.match(text):
        return AskAgain(reason=f"Torrentino's torrent client does not answer: {reason}")
    error_type = next((type_ for begin, type_ in _FAILURES if text.startswith(begin)), None)
    failure = AttemptFailed(error_type or ErrorType.UNKNOWN, f"Torrentino: {reason}")
    return Gather(failure=failure) if text.startswith(_NOT_PLACED) else GiveUp(failure=failure)


def _rejected(reason: str) -> Action:
    message = f"a person rejected the candidates: {reason}"
    return GiveUp(failure=AttemptFailed(ErrorType.REJECTED, message))


def _cancelled(reason: str) -> Action:
    message = f"cancelled at Torrentino: {reason}"
    # Not by us, and no more durable than ours: no other ticket before this one stays so.
    return GiveUp(failure=AttemptFailed(ErrorType.CANCELLED, message), withdraw=True)


# The other five states: how a ticket ends, as far as Torrentino is concerned.
_ENDINGS: dict[str, Callable[[str], Action]] = {
    RemoteState.COMPLETED: lambda _: Collect(),
    RemoteState.ACQUISITION_FAILED: _acquisition_failed,
    RemoteState.FAILED: _failed,
    RemoteState.REJECTED: _rejected,
    RemoteState.CANCELLED: _cancelled,
}
