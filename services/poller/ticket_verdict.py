"""What each state of a Torrentino ticket means for the items it serves, and what can be done.

The table covers all 14 states; a state that is not known has a rule too. Texts of failures are
classified here because Torrentino gives no codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from shared.acquisition.protocol import Location
from shared.errors import AttemptFailed, ErrorType
from shared.states import Stage
from shared.torrentino.engine import SourceFile
from shared.torrentino.model import RemoteState, RemoteTicket, mappings_of


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """The attempt is over. `withdraw`: the ticket may continue, and has to be cancelled."""

    failure: AttemptFailed
    withdraw: bool = False


@dataclass(frozen=True, kw_only=True)
class Excused:
    """No progress was possible, which is not the ticket's fault: its stall clock starts again."""

    orchestrator_stopped: bool
    client_away: bool


@dataclass(frozen=True, kw_only=True)
class Follow:
    """Torrentino is at work, or waits for a decision: the items show which."""

    stage: Stage
    # What a user should know beyond the ticket's state.
    reason: str | None = None
    # Of the torrent, where the ticket no longer tells it.
    progress_pct: float | None = None
    # What becomes of the ticket if this look shows no progress either.
    if_idle: GiveUp | Excused | None = None


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A state that is not known: read the ticket again until it changes or stalls."""

    if_idle: GiveUp | Excused | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Torrentino has ended the ticket, and the torrent may be there.

    `failure`: the pipeline could not convert or place it, as it cannot a folder.
    """

    failure: AttemptFailed | None = None


@dataclass(frozen=True, kw_only=True)
class AskAgain:
    """No attempt failed, but this ticket leads nowhere: the items need a new one."""

    reason: str
    withdraw: bool = False


@dataclass(frozen=True, kw_only=True)
class Collect:
    """The files are there."""

    at: Location


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
class AskOtherKind:
    """This kind of ticket does not serve the items; the other kind may. The ticket is ended.

    `failure` ends the attempt of those whose other kind of ticket found nothing before.
    """

    ask_next: Literal["track", "album"]
    reason: str
    failure: AttemptFailed | None = None


@dataclass(frozen=True, kw_only=True)
class NextCandidate:
    """This torrent is blocked for all items: Torrentino is to take its next candidate."""

    info_hash: str


@dataclass(frozen=True, kw_only=True)
class CancelAgain:
    """The ticket is withdrawn, and not known to stay cancelled."""


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """The ticket is withdrawn, and nothing can come of it any more."""


# What a state means by itself.
Verdict: TypeAlias = Follow | Wait | Ended | GiveUp | AskAgain
# What is done about a ticket that items wait for, and about any.
Move: TypeAlias = (
    Follow | Wait | Collect | Process | GiveUp | AskAgain | AskOtherKind | NextCandidate
)
Action: TypeAlias = Move | CancelAgain | LetGo

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
# The beginnings of `failed.error`, with what they tell of the torrent or of Torrentino.
_FAILURES = (
    ("all ", ErrorType.CONNECTION),
    ("download stalled", ErrorType.STALLED),
    ("conversion failed", ErrorType.CORRUPTION),
    ("placement failed", ErrorType.STORAGE),
    ("failed to start pipeline", ErrorType.STORAGE),
)
# Torrentino's text when its torrent client does not answer. A dead link has other words.
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
    " completes may be another torrent's, so nothing of it is collected. It continues by itself"
    " when Torrentino takes a candidate with a hash; or cancel the ticket and retry"
)

NO_TRACKERS = (
    "what was approved has no trackers, which Torrentino loses with an approval: unless the torrent"
    " client has DHT, it finds no peer. Cancel the item and retry it, or let us search"
    " (ACQUISITION=direct)"
)
# A magnet link is resolved within a minute, if at all.
_RESOLVED_S = 120.0
_TRACKER = re.compile(r"[?&]tr(?:\.\d+)?=", re.IGNORECASE)


def verdict_of(remote: RemoteTicket) -> Verdict:
    """What a ticket's state means by itself."""
    if remote.state in _FOLLOW:
        return Follow(stage=_FOLLOW[RemoteState(remote.state)])
    ending = _ENDINGS.get(remote.state)
    return Wait() if ending is None else ending(remote.reason or "no reason given")


def untrusted(remote: RemoteTicket) -> Follow | Wait | GiveUp | AskAgain | None:
    """What to do about a ticket whose download had no hash; None: as about any other.

    Its items wait while it downloads so, for Torrentino may yet take a candidate with a hash. When
    it ends, the attempt does: what it brought is not inspected.
    """
    match remote.state:
        case RemoteState.DOWNLOADING if remote.empty_hash:
            return Follow(stage=Stage.NEEDS_APPROVAL, reason=NO_HASH)
        case RemoteState.CONVERTING | RemoteState.PLACING:
            return Follow(stage=Stage.NEEDS_APPROVAL, reason=NO_HASH)
        case RemoteState.COMPLETED | RemoteState.FAILED:
            verdict = verdict_of(remote)
            if not isinstance(verdict, Ended):
                return verdict
            message = "Torrentino found only a torrent without a hash, which cannot be trusted"
            return GiveUp(failure=AttemptFailed(ErrorType.NOT_FOUND, message))
    return None


def without_trackers(remote: RemoteTicket, *, idle_s: float) -> Follow | None:
    """What to show of a download that began without trackers, as after an approval; None: it has.

    `idle_s`: for how long the ticket has shown the same.
    """
    if remote.state != RemoteState.DOWNLOADING or not _lacks_trackers(remote):
        return None
    alone = not remote.progress_pct and idle_s >= _RESOLVED_S
    # There is a reason in either case: the warning does not outlive what it warns of.
    reason = NO_TRACKERS if alone else f"Torrentino: {remote.state}"
    return Follow(stage=Stage.DOWNLOADING, reason=reason)


def _lacks_trackers(remote: RemoteTicket) -> bool:
    """Whether its links are known, and none of them names a tracker."""
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
) -> GiveUp | NextCandidate | None:
    """What to do about a ticket that may serve a blocked torrent; None: it does not.

    `blocked` are those that are blocked for all of the ticket's items, or can never be placed.
    `seen` is the torrent that the ticket was last seen to download; once it is completed, the
    ticket no longer tells.
    """
    if not blocked:
        return None
    others = remote.offered - blocked
    match remote.state:
        case RemoteState.COMPLETED | RemoteState.FAILED if seen in blocked and (
            isinstance(verdict_of(remote), Ended)
        ):
            return only_blocked(blocked, withdraw=False)
        case RemoteState.DOWNLOADING if remote.info_hash in blocked:
            assert remote.info_hash is not None, "nothing that is None is blocked"
            if others:
                return NextCandidate(info_hash=remote.info_hash)
            return only_blocked(blocked, withdraw=True)
        case state if state in _CHOOSING and remote.offered and not others:
            return only_blocked(blocked, withdraw=True)
    return None


def only_blocked(blocked: frozenset[str], *, withdraw: bool) -> GiveUp:
    """As when nothing was found: what was found is known not to be it."""
    failure = AttemptFailed(
        ErrorType.NOT_FOUND,
        "Torrentino offers no other torrent; you may find and approve another candidate there",
        {"blocked": sorted(blocked)},
    )
    return GiveUp(failure=failure, withdraw=withdraw)


def _acquisition_failed(reason: str) -> Verdict:
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


def _failed(reason: str) -> Verdict:
    text = reason.lower()
    if _CLIENT_AWAY.match(text):
        return AskAgain(reason=f"Torrentino's torrent client does not answer: {reason}")
    error_type = next((type_ for begin, type_ in _FAILURES if text.startswith(begin)), None)
    failure = AttemptFailed(error_type or ErrorType.UNKNOWN, f"Torrentino: {reason}")
    return Ended(failure=failure) if text.startswith(_NOT_PLACED) else GiveUp(failure=failure)


def _rejected(reason: str) -> Verdict:
    message = f"the candidates were rejected at Torrentino: {reason}"
    return GiveUp(failure=AttemptFailed(ErrorType.REJECTED, message))


def _cancelled(reason: str) -> Verdict:
    message = f"cancelled at Torrentino: {reason}"
    # Not by us, and as little durable as our cancels: no other ticket before this one stays so.
    return GiveUp(failure=AttemptFailed(ErrorType.CANCELLED, message), withdraw=True)


# The other five states: how a ticket ends for Torrentino.
_ENDINGS: dict[str, Callable[[str], Verdict]] = {
    RemoteState.COMPLETED: lambda _: Ended(),
    RemoteState.ACQUISITION_FAILED: _acquisition_failed,
    RemoteState.FAILED: _failed,
    RemoteState.REJECTED: _rejected,
    RemoteState.CANCELLED: _cancelled,
}
