"""How work on an item ends when its file does not get its name: each a guarded move of the item."""

from __future__ import annotations

import random
from typing import Literal

import structlog

from services.fetcher_writer.match import Lacking
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import Work
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.bad_sources import block_source, lacks_source
from shared.db.blocklist import Why
from shared.db.downloads import next_release
from shared.db.items import fail_attempt, go_on, hand_back
from shared.errors import AttemptFailed, ErrorType
from shared.matching.model import Doubt
from shared.metrics import ATTEMPTS_FAILED
from shared.states import Stage

log = structlog.get_logger()

ACTOR = "fetcher_writer"


class LacksTrack(AttemptFailed):
    """The torrent does not have the track."""


def _fault_of_the_release(work: Work, failure: AttemptFailed) -> Why | None:
    """Why another release may do better; None: this one may, another time."""
    if isinstance(failure, LacksTrack):
        return "lacks"
    if failure.error_type is ErrorType.CORRUPTION:
        return "wrong"
    return "refused" if work.ticket.in_the_way else None


class Outcomes:
    """Writes them; what was lost meanwhile is left alone."""

    def __init__(
        self,
        store: Store,
        *,
        bus: Bus,
        retries: RetryPolicy,
        rng: random.Random,
        grouping: Literal["auto", "track", "album"],
        max_grabs: int,
    ) -> None:
        self._store = store
        self._bus = bus
        self._retries = retries
        self._rng = rng
        self._grouping = grouping
        self._max_grabs = max_grabs

    async def leave_to_a_person(self, work: Work, doubt: Doubt) -> None:
        evidence = {
            "candidates": [dict(candidate) for candidate in doubt.candidates],
            "ticket": work.ticket.id,
            "info_hash": work.ticket.info_hash,
        }
        reason = (
            f"{doubt.reason}: look at the candidates in error_evidence, then approve the item with"
            " the name of its file, or reject it"
        )
        left = await self._store.leave_to_a_person(work.claim, reason=reason, evidence=evidence)
        reached("fetcher.held")
        log.info("item_held", item_id=work.claim.item_id, left=left, why=doubt.reason)

    async def miss(self, work: Work, lacking: Lacking) -> None:
        """Let the next kind of ticket serve the item, if there is another kind for it."""
        title = work.ticket.torrent_title or "what was downloaded"
        reason = f"{title} does not have this track"[:500]
        alone = work.ticket.kind == "track" or self._grouping == "album"
        if alone or work.ticket.way == "direct":
            evidence = {"files": [dict(offer) for offer in lacking.offers]}
            raise LacksTrack(ErrorType.NOT_FOUND, reason, evidence)
        async with self._store.database.transaction() as connection:
            moved = await go_on(
                connection, work.claim, ask_next="track", reason=reason, actor=ACTOR
            )
            if moved:
                await lacks_source(connection, work.claim.item_id, reason)
        reached("fetcher.missed")
        log.info("track_missing", item_id=work.claim.item_id, track_id=work.track_id, why=reason)
        await self._bus.wake("ticket")

    async def fail(self, work: Work, failure: AttemptFailed) -> None:
        reached("fetcher.failing")
        if work.ticket.way == "direct" and (why := _fault_of_the_release(work, failure)):
            await self._next_release(work, failure, why)
            return
        async with self._store.database.transaction() as connection:
            ended = await fail_attempt(
                connection,
                work.claim.item_id,
                failure,
                stages=[Stage.FETCHING, Stage.VERIFYING, Stage.CONVERTING],
                fence=work.claim.fence,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
            if ended is not None and isinstance(failure, LacksTrack):
                await lacks_source(connection, work.claim.item_id, failure.message)
            elif ended is not None:
                await block_source(connection, work.claim.item_id, failure)
        reached("fetcher.failed")
        ATTEMPTS_FAILED.labels(failure.error_type).inc()
        await self._bus.wake("ticket")

    async def _next_release(self, work: Work, failure: AttemptFailed, why: Why) -> None:
        """What is wrong for this track is blocked for it; the next release may bring it."""
        async with self._store.database.transaction() as connection:
            stage = await next_release(
                connection,
                work.claim.item_id,
                failure,
                why=why,
                stages=[Stage.FETCHING, Stage.VERIFYING, Stage.CONVERTING],
                fence=work.claim.fence,
                max_grabs=self._max_grabs,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
        reached("fetcher.blocked")
        log.info(
            "release_blocked",
            item_id=work.claim.item_id,
            release=work.ticket.torrent_title,
            why=failure.message,
            stage=stage,
        )
        ATTEMPTS_FAILED.labels(failure.error_type).inc()
        await self._bus.wake("ticket")

    async def hand_back(self, work: Work, delay_s: float, reason: str) -> None:
        async with self._store.database.connection() as connection:
            await hand_back(
                connection, work.claim, Stage.READY, delay_s=delay_s, reason=reason, actor=ACTOR
            )
