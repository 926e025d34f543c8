"""How the work on an item ends: the mapping from each outcome to the move of the item.

    outcome                                    move
    ─────────────────────────────────────────  ─────────────────────────────────────────────────
    published, adopted                         completed: see `publish.py`
    NeedsChoice                                held, until an administrator chooses the file
    LacksTrack, if a ticket for the track      queued for that ticket, no attempt used
      alone may follow
    AttemptFailed, of a released file          queued, no attempt used
    AttemptFailed, direct, by the release      the next release, or as below without one
    AttemptFailed, every other                 retry_wait or failed; the torrent is blocked
      of these, CorruptAudio                   the file is kept for a while: see `kept_files.py`
    Unavailable                                ready again after a pause, no attempt used
    HandedBack                                 the same, after longer and longer pauses and only so
                                               often in a row; then as its AttemptFailed
    cancelled                                  ready again at once, no attempt used
    Stale                                      none: the item is another worker's, or cancelled
    any other error, which is a bug            as AttemptFailed: handed back, it would never end

Each move is guarded by the fence of the claim: nothing happens to an item that was lost meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog

from services.fetcher_writer.kept_files import Keeper, Releases
from services.fetcher_writer.matched import LacksTrack, NeedsChoice
from services.fetcher_writer.second_look import HandedBack
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import ACTOR, Work
from shared.announcer import Announcer
from shared.backoff import Backoff, RetryPolicy
from shared.crashpoints import reached
from shared.db import moves, refused_files
from shared.db.bad_sources import block_source, lacks_source
from shared.db.blocklist import Why
from shared.db.pool import Connection
from shared.db.refused_files import RefusedFile
from shared.errors import AttemptFailed, ErrorType, Stale, Unavailable
from shared.matching.model import Doubt
from shared.metrics import ATTEMPTS_FAILED
from shared.remedies import CHOICE, explained
from shared.states import WRITING, Stage

log = structlog.get_logger()

# A file that Torrentino reports as placed may be visible over a network only after a moment.
_PAUSE_S = 5.0
# Where the place works, and nothing says what is at fault.
_PAUSES = Backoff(first_s=10.0, longest_s=900.0)
_FROM = (Stage.FETCHING, Stage.VERIFYING, Stage.CONVERTING)


class Outcomes:
    """Writes the moves."""

    def __init__(
        self,
        store: Store,
        *,
        announcer: Announcer,
        retries: RetryPolicy,
        grouping: Literal["auto", "track", "album"],
        max_grabs: int,
        keeper: Keeper,
        releases: Releases,
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._retries = retries
        self._grouping = grouping
        self._max_grabs = max_grabs
        self._keeper = keeper
        self._releases = releases

    async def settle(self, work: Work, outcome: BaseException) -> None:
        """Make the move that the outcome asks for.

        Raises:
            DependencyDown: PostgreSQL is away; the lease brings the item back.
        """
        match outcome:
            case Stale():
                log.info("lost_claim_dropped", item_id=work.claim.item_id, detail=str(outcome))
            case NeedsChoice(doubt=doubt):
                await self._leave_to_administrator(work, doubt)
            case LacksTrack() if self._may_ask_for_the_track(work):
                await self._ask_for_the_track(work, outcome)
            case AttemptFailed() if work.released is not None:
                await self._releases.fail(work, outcome)
            case AttemptFailed():
                await self.fail(work, outcome)
            case HandedBack():
                await self._try_later(work, outcome)
            case Unavailable():
                await self._hand_back(work, str(outcome), pause_s=_PAUSE_S)
            case asyncio.CancelledError():
                await self._hand_back(work, str(outcome) or "stopping", pause_s=0.0)
            case _:
                log.error("fetch_broke", item_id=work.claim.item_id, exc_info=outcome)
                await self.fail(work, _internal_error(outcome))

    async def _try_later(self, work: Work, later: HandedBack) -> None:
        if work.hand_backs >= later.most:
            failure = later.failure
            message = f"{failure.message}; tried {work.hand_backs + 1} times in a row"
            evidence = failure.evidence | {"tried": work.hand_backs + 1}
            await self.fail(work, AttemptFailed(failure.error_type, message[:1000], evidence))
            return
        pause_s = _PAUSES.pause_s(work.hand_backs, self._retries.rng)
        log.warning(
            "item_handed_back",
            item_id=work.claim.item_id,
            tried=work.hand_backs + 1,
            pause_s=round(pause_s, 1),
            why=str(later),
        )
        await self._hand_back(work, str(later), pause_s=pause_s, counted=True)

    async def _hand_back(
        self, work: Work, reason: str, *, pause_s: float, counted: bool = False
    ) -> None:
        async with self._store.database.connection() as connection:
            await moves.hand_back(
                connection,
                [work.claim],
                Stage.READY,
                delay_s=pause_s,
                reason=reason,
                actor=ACTOR,
                counted=counted,
            )
        await self._announcer.announce()

    async def fail(self, work: Work, failure: AttemptFailed) -> None:
        """End the attempt, or go to the next release where this one is at fault."""
        reached("fetcher.failing")
        why = _fault_of_the_release(work, failure) if work.ticket.mode == "direct" else None
        refused = await self._keeper.set_aside(work, failure)
        if why is not None:
            moved = await self._next_release(work, failure, why, refused)
        else:
            moved = await self._end_attempt(work, failure, refused)
        if refused is not None and not moved:
            await self._keeper.drop(refused)
        ATTEMPTS_FAILED.labels(failure.error_type).inc()
        await self._announcer.announce("ticket")

    async def _end_attempt(
        self, work: Work, failure: AttemptFailed, refused: RefusedFile | None
    ) -> bool:
        async with self._store.database.transaction() as connection:
            ended = await moves.fail(
                connection,
                [work.claim],
                failure,
                stages=WRITING,
                policy=self._retries,
                actor=ACTOR,
            )
            if ended and isinstance(failure, LacksTrack):
                await _lacks(connection, work, failure)
            elif ended:
                await block_source(connection, work.claim.item_id, failure)
            if ended and refused is not None:
                await refused_files.keep(connection, work.claim.item_id, refused)
        reached("fetcher.failed")
        return bool(ended)

    async def _next_release(
        self, work: Work, failure: AttemptFailed, why: Why, refused: RefusedFile | None
    ) -> bool:
        async with self._store.database.transaction() as connection:
            stages = await moves.try_next_release(
                connection,
                [work.claim],
                failure,
                why=why,
                stages=WRITING,
                max_grabs=self._max_grabs,
                policy=self._retries,
                actor=ACTOR,
            )
            if stages and refused is not None:
                await refused_files.keep(connection, work.claim.item_id, refused)
        reached("fetcher.blocked")
        log.info(
            "release_blocked",
            item_id=work.claim.item_id,
            release=work.ticket.torrent_title,
            why=failure.message,
            stage=stages.get(work.claim.item_id),
        )
        return bool(stages)

    async def _leave_to_administrator(self, work: Work, doubt: Doubt) -> None:
        evidence = {
            "candidates": [dict(candidate) for candidate in doubt.candidates],
            "ticket": work.ticket.id,
            "info_hash": work.ticket.info_hash,
        }
        reason = f"{doubt.reason}: {CHOICE}"
        left = await self._store.leave_to_a_person(work.claim, reason=reason, evidence=evidence)
        reached("fetcher.held")
        await self._announcer.announce()
        log.info("item_held", item_id=work.claim.item_id, left=left, why=doubt.reason)

    def _may_ask_for_the_track(self, work: Work) -> bool:
        """Whether a ticket for the track alone may follow this one, which was for the album."""
        alone = work.ticket.kind == "track" or self._grouping == "album"
        return not alone and work.ticket.mode == "tickets"

    async def _ask_for_the_track(self, work: Work, lacks: LacksTrack) -> None:
        refused = await self._keeper.set_aside(work, lacks)
        async with self._store.database.transaction() as connection:
            moved = await moves.hand_back(
                connection,
                [work.claim],
                Stage.QUEUED,
                delay_s=0.0,
                ask_next="track",
                reason=explained(lacks),
                actor=ACTOR,
            )
            if moved:
                await _lacks(connection, work, lacks)
            if moved and refused is not None:
                await refused_files.keep(connection, work.claim.item_id, refused)
        if refused is not None and not moved:
            await self._keeper.drop(refused)
        reached("fetcher.missed")
        await self._announcer.announce("ticket")
        log.info(
            "track_missing",
            item_id=work.claim.item_id,
            track_id=work.track_id,
            why=lacks.message,
        )


async def _lacks(connection: Connection, work: Work, lacks: LacksTrack) -> None:
    await lacks_source(connection, work.claim.item_id, explained(lacks), evidence=lacks.evidence)


def _fault_of_the_release(work: Work, failure: AttemptFailed) -> Why | None:
    """Why another release may do better; None: a later attempt with this one may."""
    if isinstance(failure, LacksTrack):
        return "lacks"
    if failure.error_type is ErrorType.CORRUPTION:
        return "wrong"
    return "refused" if work.ticket.in_the_way else None


def _internal_error(bug: BaseException) -> AttemptFailed:
    return AttemptFailed(ErrorType.UNKNOWN, f"internal error: {type(bug).__name__}: {bug}"[:500])
