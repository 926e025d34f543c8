"""What is done about a ticket: one list of questions, in their order; the first answer is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from services.poller.delivery_plan import delivered, placed_again
from services.poller.fallback import other_kind
from services.poller.own_faults import MOST_FAILURES
from services.poller.ticket_cancellation import withdrawn
from services.poller.ticket_facts import TicketFacts
from services.poller.ticket_verdict import (
    GONE,
    Action,
    AskAgain,
    Ended,
    Excused,
    Follow,
    GiveUp,
    LetGo,
    NextCandidate,
    Wait,
    only_blocked,
    refusal_of,
    untrusted,
    without_trackers,
)
from shared.acquisition.protocol import Phase
from shared.errors import AttemptFailed, Conflict, ErrorType, Unavailable
from shared.states import Stage
from shared.torrentino.look_ups import MISSING
from shared.torrentino.model import RemoteState

# Five candidates in three rounds are all that Torrentino tries.
_MOST_REFUSALS = 15

# Only downloads are resumed by a Torrentino that restarts. What it was searching for, converting or
# placing stays in that state for ever, as if it were at work. Seconds without a change after which
# it is worth asking; the longest that each may take.
_SUSPECT_S: dict[str, float] = {
    RemoteState.ACQUIRING: 15 * 60.0,
    RemoteState.CONVERTING: 65 * 60.0,
    RemoteState.PLACING: 30 * 60.0,
}
_IN_PIPELINE = (RemoteState.CONVERTING, RemoteState.PLACING)


async def decide(facts: TicketFacts) -> Action:
    """The one action; nothing is changed.

    Raises:
        Unavailable: Torrentino, its torrent client or PostgreSQL does not answer, or refuses us.
    """
    action = await _answer(facts)
    if isinstance(action, Follow | Wait):
        return replace(action, if_idle=await _stalled(facts, action))
    return action


def ending_of(facts: TicketFacts, away: Unavailable) -> GiveUp | LetGo | None:
    """What becomes of a ticket that fails alone; None: it is read again, after a longer wait."""
    if facts.ticket.withdrawing:
        return LetGo() if facts.ticket.failures >= MOST_FAILURES else None
    if facts.idle_s < facts.stall_timeout_s:
        return None
    message = f"Torrentino works, but not for this ticket: {away.detail}"
    return GiveUp(failure=AttemptFailed(ErrorType.STALLED, message), withdraw=True)


async def _answer(facts: TicketFacts) -> Action:
    for question in QUESTIONS:
        action = await question(facts)
        if action is not None:
            return action
    return await _by_state(facts)


async def _gone(facts: TicketFacts) -> Action | None:
    return GONE if facts.seen.phase is Phase.GONE else None


async def _blocked(facts: TicketFacts) -> Action | None:
    """Whether it serves a torrent that is blocked for all of its items, or can never be placed."""
    blocked = facts.ticket.blocked | await facts.never_placed()
    refusal = refusal_of(facts.remote, seen=facts.ticket.info_hash, blocked=blocked)
    if not isinstance(refusal, NextCandidate):
        return refusal
    # A torrent that others need, that is still seeding, or that is not ours, cannot be taken from
    # this ticket.
    try:
        if facts.refusals < _MOST_REFUSALS and await facts.may_refuse():
            return refusal
    except Conflict:
        return None  # it is being added or removed: asked again at the next poll
    return only_blocked(blocked, withdraw=True)


async def _lost_job(facts: TicketFacts) -> Action | None:
    """Whether a restart of Torrentino left it in a state in which nothing works on it.

    STALL_TIMEOUT_S limits the wait: a lost job is found before it counts as stalled.
    """
    remote = facts.remote
    suspect_s = _SUSPECT_S.get(remote.state)
    if suspect_s is None or not facts.same_state:
        return None
    if facts.idle_s < min(suspect_s, facts.stall_timeout_s):
        return None
    busy = await facts.at_work.pipeline()
    if busy is None or busy is MISSING:
        return None
    if remote.id in busy or not await facts.is_unchanged():
        return None
    reason = f"{remote.state} at Torrentino for {facts.idle_s:.0f} s, but nothing there works on it"
    lost = AskAgain(reason=reason, withdraw=True)
    ours = remote.state in _IN_PIPELINE and facts.ticket.process_asked_at is not None
    return await placed_again(facts, lost) if ours else lost


async def _untrusted(facts: TicketFacts) -> Action | None:
    """Whether it downloads, or has downloaded, without knowing which torrent."""
    if facts.ticket.distrusted or facts.remote.empty_hash:
        return untrusted(facts.remote)
    return None


async def _without_trackers(facts: TicketFacts) -> Action | None:
    return without_trackers(facts.remote, idle_s=facts.idle_s if facts.same_state else 0.0)


Question: TypeAlias = Callable[[TicketFacts], Awaitable[Action | None]]

QUESTIONS: Sequence[Question] = (
    withdrawn,
    _gone,
    _blocked,
    _lost_job,
    _untrusted,
    _without_trackers,
    other_kind,
)


async def _by_state(facts: TicketFacts) -> Action:
    """What its state means, where no question has an answer."""
    verdict = facts.verdict
    return await delivered(facts, verdict) if isinstance(verdict, Ended) else verdict


async def _stalled(facts: TicketFacts, action: Follow | Wait) -> GiveUp | Excused | None:
    """What becomes of a followed ticket that has shown the same for STALL_TIMEOUT_S.

    None: it may wait longer, or waits for an administrator.
    """
    if isinstance(action, Follow) and action.stage is Stage.NEEDS_APPROVAL:
        return None
    if facts.ticket.remote_state is None or facts.idle_s < facts.stall_timeout_s:
        return None
    stopped = not await facts.at_work.orchestrator_runs()
    away = not facts.asked.torrent_client.ok
    if stopped or away or await facts.waits_its_turn():
        return Excused(orchestrator_stopped=stopped, client_away=away)
    message = f"no progress at Torrentino for {facts.stall_timeout_s:.0f} s"
    if isinstance(action, Follow) and action.reason is not None:
        message = f"{message}: {action.reason}"
    return GiveUp(failure=AttemptFailed(ErrorType.STALLED, message), withdraw=True)
