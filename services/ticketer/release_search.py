"""Searches: each query asked once for all items that need it, within the budget."""

from __future__ import annotations

import asyncio

import structlog

from services.ticketer.attempt import NoTurn
from services.ticketer.direct_claims import Work
from services.ticketer.search_turns import SearchLimits
from shared.crashpoints import reached
from shared.db import releases
from shared.db.pool import Database
from shared.db.releases import Remembered
from shared.errors import Unavailable
from shared.health import Health
from shared.metrics import SEARCHES
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.search import Found

log = structlog.get_logger()

# Another ticketer asks the same just now: the answer is there in a moment.
_SOON_S = 2.0


class ReleaseSearch:
    """Answers from what is remembered, and asks the indexers for the rest."""

    def __init__(
        self,
        database: Database,
        limits: SearchLimits,
        client: TorrentinoClient,
        health: Health,
    ) -> None:
        self._database = database
        self._limits = limits
        self._client = client
        self._health = health
        self._searcher = health.breaker("searcher")
        self._one_at_a_time = asyncio.Lock()

    def wait_s(self) -> float:
        """How long this process does not search, because the indexers are away."""
        return self._searcher.wait_s()

    async def ask(self, work: Work, query: str) -> Remembered:
        """What indexers list for one of the queries of what is wanted.

        Raises:
            NoTurn: the budget allows no search now, or another ticketer asks the same.
            Unavailable: Torrentino, its indexers or PostgreSQL are away.
        """
        ttl_s = self._limits.ttl_of(work.want, query)
        # Indexers make no difference between capitals and small letters.
        query = query.casefold()
        async with self._database.connection() as connection:
            known = await releases.read(connection, query, ttl_s=ttl_s, since=work.since)
        if known is not None:
            return known
        # When the first one finds that the indexers are away, the others need not.
        async with self._one_at_a_time:
            return await self._search(work, query, ttl_s=ttl_s)

    async def _asked(self, query: str) -> Found:
        """The indexers' answer; as long as it takes no other ticketer asks the same."""
        asking = asyncio.create_task(self._client.search(query))
        try:
            while True:
                done, _ = await asyncio.wait([asking], timeout=releases.ASKING_S / 3)
                if done:
                    return await asking
                async with self._database.connection() as connection:
                    await releases.go_on_asking(connection, query)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _search(self, work: Work, query: str, *, ttl_s: float) -> Remembered:
        if self.wait_s() > 0:
            raise NoTurn(self.wait_s(), "waits: the indexers are away")
        async with self._database.transaction() as connection:
            turn = await releases.next_turn(
                connection, self._limits.budget, background=work.background, lock=True
            )
            # It may have been answered while we waited for the lock.
            known = await releases.read(connection, query, ttl_s=ttl_s, since=work.since)
            if known is not None:
                return known
            if await releases.asked_now_s(connection, query) > 0:
                raise NoTurn(_SOON_S, "waits for the answer to the same search")
            if turn.wait_s > 0:
                raise NoTurn(turn.wait_s, "waits for its turn to search")
            made = await releases.begin(connection, query)
        reached("direct.searching")
        try:
            with self._searcher.probing():
                found = await self._asked(query)
        except BaseException as error:
            async with self._database.transaction() as connection:
                await releases.give_up(connection, query, made)
            # Torrentino may work, but for this query: a second look decides.
            if isinstance(error, Unavailable) and error.dependency == "searcher":
                self._health.failed(error)
            raise
        self._health.up("searcher")
        SEARCHES.labels("found" if found.releases else "nothing").inc()
        log.info("searched", query=query, releases=len(found.releases), failed=list(found.failed))
        reached("direct.searched")
        async with self._database.transaction() as connection:
            await releases.keep(connection, query, found)
            kept = await releases.read(connection, query, ttl_s=ttl_s, since=None)
        assert kept is not None, "it was answered this moment"
        reached("direct.remembered")
        return kept
