"""Whether a withdrawn ticket has ended: Torrentino forgets a cancel, so it is repeated."""

from __future__ import annotations

from services.poller.ticket_facts import TicketFacts
from services.poller.ticket_verdict import CancelAgain, LetGo
from shared.torrentino.look_ups import MISSING
from shared.torrentino.model import ENDED, RemoteState

# For how many poll intervals a cancel has to last: a search may take 30 s to get an answer and
# write over it, a creation 20 s to arrive.
_INTERVALS = 2
_SEARCH_INTERVALS = 8
_UNSEEN_INTERVALS = 4


async def withdrawn(facts: TicketFacts) -> CancelAgain | LetGo | None:
    """What to do about a ticket that no item waits for; None: items wait for it."""
    if not facts.ticket.withdrawing:
        return None
    return LetGo() if await _is_over(facts) else CancelAgain()


async def _is_over(facts: TicketFacts) -> bool:
    """Whether nothing can come of it any more (reference: §2.5)."""
    ticket, remote = facts.ticket, facts.seen.remote
    if remote is None:
        # Asked for, and never seen: the request may still be on its way.
        return ticket.torrentino_id is not None or _rests_for(facts, _UNSEEN_INTERVALS)
    if remote.state not in ENDED:
        return False
    if remote.state != RemoteState.CANCELLED:
        return True
    # Torrentino's loops may still overwrite a cancel: a search when it gets an answer, a conversion
    # when it is done.
    searching = ticket.remote_state == RemoteState.ACQUIRING
    if not _rests_for(facts, _SEARCH_INTERVALS if searching else _INTERVALS):
        return False
    busy = await facts.at_work.pipeline()
    if busy is MISSING:
        # A conversion may write over the cancel when it is done.
        return _rests_for(facts, _SEARCH_INTERVALS)
    return remote.id not in (busy or ())


def _rests_for(facts: TicketFacts, intervals: int) -> bool:
    since = facts.ticket.at_rest_since
    return since is not None and (
        (facts.ticket.now - since).total_seconds() >= intervals * facts.poll_interval_s
    )
