"""The fetcher-writer: from a finished ticket to a verified file under its final name.

For each item: look whether the file is there already, else collect it under a temporary name,
decode it to the end, and only then give it its name, in the transaction that completes the item
while the row is locked by our fence. Whatever goes wrong, nothing else ever appears under
`audio/`. docs/architecture.md, "Placing a file", goes through each crash.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from services.fetcher_writer.collecting import Collector
from services.fetcher_writer.room import MediaRoom, Room
from services.fetcher_writer.store import Store, Work, hold
from shared.backoff import RetryPolicy
from shared.bus.nats import Bus
from shared.crashpoints import reached
from shared.db.installation import MediaRoot
from shared.db.items import advance, fail_attempt, hand_back
from shared.db.ledger import complete
from shared.db.sources import block_source
from shared.errors import (
    AttemptFailed,
    CorruptAudio,
    Dependency,
    DependencyDown,
    ErrorType,
    Hold,
    Stale,
)
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.media.existing import look
from shared.media.paths import audio_uri, taken_in_another_case, temp_file
from shared.media.place import discard, publish, translated, written
from shared.media.refused import move_aside
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify
from shared.metrics import (
    ATTEMPTS_FAILED,
    BYTES_PLACED,
    FILES_PLACED,
    VERIFY_SECONDS,
)
from shared.runtime import Loop, drain
from shared.states import Stage

log = structlog.get_logger()

ACTOR = "fetcher_writer"
# A file that Torrentino says is there may take a moment to be seen over a network.
_HAND_BACK_S = 5.0
_DISKS: tuple[Dependency, ...] = ("media", "space")
# Each turn moves aside what had taken the name meanwhile; more than this is no accident.
_TURNS = 3


class FetcherWriter:
    """Works on up to `concurrency` items at once; `run_once` fills the free places."""

    name = ACTOR

    def __init__(
        self,
        *,
        store: Store,
        collector: Collector,
        root: MediaRoot,
        leases: LeaseKeeper,
        tools: Callable[[], AudioTools],
        bus: Bus,
        relay_wake: asyncio.Event,
        health: Health,
        retries: RetryPolicy,
        rng: random.Random,
        concurrency: int,
        tolerance_s: float,
        min_free_mb: int,
        sweep_interval_s: float,
        cleaning: asyncio.Event,
    ) -> None:
        self._store = store
        self._collector = collector
        self._root = root
        self._leases = leases
        self._tools = tools
        self._bus = bus
        self._relay_wake = relay_wake
        self._health = health
        self._retries = retries
        self._rng = rng
        self._concurrency = concurrency
        self._tolerance_s = tolerance_s
        self._room = MediaRoom(root.path, min_free_mb=min_free_mb)
        self._working: set[asyncio.Task[None]] = set()
        self._held: Hold | None = None
        self._incoming = health.breaker("incoming")
        self._cleaning = cleaning
        self.loop = Loop(
            self.name,
            self.run_once,
            interval_s=sweep_interval_s,
            health=health,
            rng=rng,
            needs=["media", "space", "ffmpeg", "incoming"],
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Claim until the stop, then let what is in hand end; cancelled, hand it back."""
        await drain(self.loop, self._working, stop)

    async def run_once(self) -> int:
        """Claim as many items as there are free places; returns how many.

        Raises:
            Hold: a disk, ffmpeg or PostgreSQL cannot be used now.
        """
        held, self._held = self._held, None
        if held is not None and self._health.is_news(held):
            raise held
        free = self._allowance() - len(self._working)
        if free <= 0:
            return 0
        room = await self._check()
        batch = await self._store.claim(free, room)
        # Only now: that there is some room does not say that what waits fits into it.
        self._health.up("space")
        if batch:
            reached("fetcher.claimed")
        for work in batch:
            task = asyncio.create_task(self._work(work), name=f"fetch {work.claim.item_id}")
            self._working.add(task)
            task.add_done_callback(self._done)
        self._relay_wake.set()
        return len(batch)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self.loop.wake.set()
        self._relay_wake.set()
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Hold):
            # PostgreSQL is away, so that nothing could be written down: the lease brings it back.
            log.warning("fetch_left_to_its_lease", task=task.get_name(), detail=str(error))
        else:
            log.error("fetch_failed", task=task.get_name(), exc_info=error)

    async def _check(self) -> Room | None:
        """What may be claimed; None: what is collected takes no room of its own."""
        await self._root.check()
        free_bytes, total_bytes = await self._room.check()
        self._health.up("media")
        await asyncio.to_thread(self._tools)
        self._health.up("ffmpeg")
        if not self._incoming.ok:
            # Asked before anything is claimed: an outage must not fill the items' histories.
            await self._collector.check()
            self._health.up("incoming")
        if not await self._collector.takes_room(self._root.path):
            return None
        room = await self._room.room(free_bytes, total_bytes)
        await self._store.put_off(room)
        return room

    def _allowance(self) -> int:
        breakers = (*(self._health.breaker(name) for name in _DISKS), self._incoming)
        return min(breaker.allowance(self._concurrency) for breaker in breakers)

    async def _work(self, work: Work) -> None:
        temp = temp_file(self._root.path, work.claim.item_id, work.claim.fence)
        with self._leases.holding(work.claim):
            try:
                await self._attempt(work, temp)
            except Stale as stale:
                log.info("lost_claim_dropped", item_id=work.claim.item_id, detail=str(stale))
            except AttemptFailed as failure:
                await self._fail(work, failure)
            except Hold as held:
                self._held = held
                await self._hand_back(work, _HAND_BACK_S, str(held))
            except asyncio.CancelledError as reason:
                await asyncio.shield(self._hand_back(work, 0.0, str(reason) or "stopping"))
                raise
            except Exception as bug:
                # Handed back it would fail again, for ever: a bug uses up attempts as well.
                log.exception("fetch_broke", item_id=work.claim.item_id)
                message = f"a bug of ours: {type(bug).__name__}: {bug}"[:500]
                await self._fail(work, AttemptFailed(ErrorType.UNKNOWN, message))
            finally:
                reached("fetcher.ending")
                await asyncio.to_thread(discard, temp)

    async def _attempt(self, work: Work, temp: Path) -> None:
        try:
            await self._fetch(work, temp)
        except AttemptFailed as failure:
            if failure.error_type is ErrorType.STORAGE:
                # Below an unmounted disk, too, files are not there; that is nobody's attempt.
                await self._root.check()
                await self._collector.check()
            raise

    async def _fetch(self, work: Work, temp: Path) -> None:
        existing = await self._look(work)
        if existing is not None:
            await self._adopt(work, existing)
            return
        facts, how = await self._collect(work, temp)
        for _ in range(_TURNS):
            if await self._place(work, temp, facts, how):
                return
            existing = await self._look(work)
            if existing is not None:
                await self._adopt(work, existing)
                return
        raise DependencyDown("media", f"the name of {work.track_id} is taken again and again")

    async def _look(self, work: Work) -> AudioFacts | None:
        """The whole file that has the name already; what is not whole is moved out of the way."""
        existing = await look(
            self._root.path,
            work.track_id,
            expected_ms=work.duration_ms,
            tolerance_s=self._tolerance_s,
            tools=self._tools(),
        )
        reached("fetcher.looked")
        if existing.refused:
            async with self._store.database.transaction() as connection:
                # Whoever lost the item may be looking at what has long been replaced.
                await hold(connection, work.claim)
                await asyncio.to_thread(move_aside, self._root.path, existing.refused)
                reached("fetcher.moved_aside")
        return existing.facts

    async def _collect(self, work: Work, temp: Path) -> tuple[AudioFacts, str]:
        """The first of the ticket's files that is the right, whole audio, now at `temp`.

        Raises:
            AttemptFailed: there is none; tells of the likeliest.
        """
        first: CorruptAudio | None = None
        for file in await self._collector.candidates(work):
            await asyncio.to_thread(self._root.still_there)
            how = await self._collector.collect(work, file, temp)
            reached("fetcher.staged")
            if first is None:
                await self._say_verifying(work)
            started, before = time.monotonic(), await asyncio.to_thread(written, temp)
            try:
                facts = await verify(
                    temp,
                    expected_ms=work.duration_ms,
                    tolerance_s=self._tolerance_s,
                    tools=self._tools(),
                )
            except CorruptAudio as corrupt:
                corrupt.evidence["file"] = file.name
                first = first or corrupt
                continue
            finally:
                VERIFY_SECONDS.observe(time.monotonic() - started)
            # A hard link is the very file that Torrentino placed. Should it have a second ticket
            # with this path, that one writes over it.
            if await asyncio.to_thread(written, temp) != before:
                raise AttemptFailed(
                    ErrorType.STORAGE,
                    "the file was written to while it was verified",
                    {"file": file.name},
                )
            reached("fetcher.decoded")
            return facts, how
        assert first is not None, "candidates() gives at least one file"
        raise first

    async def _say_verifying(self, work: Work) -> None:
        self._health.up("incoming")
        async with self._store.database.connection() as connection:
            await advance(
                connection, work.claim, Stage.VERIFYING, reason="decoding the file", actor=ACTOR
            )
        reached("fetcher.verifying")

    async def _place(self, work: Work, temp: Path, facts: AudioFacts, how: str) -> bool:
        """Give the file its name and complete the item; False when the name is taken."""
        final = self._root.path / audio_uri(work.track_id, facts.ext)
        async with self._store.database.transaction() as connection:
            # From here to the commit nobody else can move this item or place a file for it.
            await hold(connection, work.claim)
            reached("fetcher.locked")
            if not await asyncio.to_thread(self._publish, temp, final):
                return False
            reached("fetcher.named")
            placed = await complete(
                connection,
                work.claim.item_id,
                facts,
                fence=work.claim.fence,
                reason="the file is in place",
                actor=ACTOR,
            )
            assert placed, "the row is locked by our fence"
            reached("fetcher.completed")
        reached("fetcher.committed")
        # The sooner the incoming name is gone, the less can happen to a file that shares it.
        self._cleaning.set()
        FILES_PLACED.labels(how).inc()
        BYTES_PLACED.inc(facts.size_bytes)
        log.info("file_placed", item_id=work.claim.item_id, path=str(final), how=how)
        return True

    def _publish(self, temp: Path, final: Path) -> bool:
        self._root.still_there()
        if publish(temp, final):
            return True
        with translated("looking at a name that is taken"):
            other = taken_in_another_case(final)
        if other is not None:
            raise AttemptFailed(
                ErrorType.REJECTED,
                f"{other} has the place of {final.name}: the filesystem of MEDIA_PATH does not"
                " tell upper from lower case, so it cannot hold both",
                {"path": str(final), "taken_by": other},
            )
        return False

    async def _adopt(self, work: Work, facts: AudioFacts) -> None:
        reached("fetcher.adopting")
        async with self._store.database.transaction() as connection:
            adopted = await complete(
                connection,
                work.claim.item_id,
                facts,
                fence=work.claim.fence,
                reason="a whole file was in place already",
                actor=ACTOR,
            )
        reached("fetcher.adopted")
        if adopted:
            FILES_PLACED.labels("adopted").inc()
            log.info("file_adopted", item_id=work.claim.item_id, track_id=work.track_id)

    async def _fail(self, work: Work, failure: AttemptFailed) -> None:
        reached("fetcher.failing")
        async with self._store.database.transaction() as connection:
            ended = await fail_attempt(
                connection,
                work.claim.item_id,
                failure,
                stages=[Stage.FETCHING, Stage.VERIFYING],
                fence=work.claim.fence,
                policy=self._retries,
                rng=self._rng,
                actor=ACTOR,
            )
            if ended is not None:
                await block_source(connection, work.claim.item_id, failure)
        reached("fetcher.failed")
        ATTEMPTS_FAILED.labels(failure.error_type).inc()
        await self._bus.wake("ticket")

    async def _hand_back(self, work: Work, delay_s: float, reason: str) -> None:
        async with self._store.database.connection() as connection:
            await hand_back(
                connection, work.claim, Stage.READY, delay_s=delay_s, reason=reason, actor=ACTOR
            )

    async def clean(self) -> int:
        """Remove the incoming folders that are done with; returns how many."""
        done, held = [], None
        for ticket_id, dest_path in (await self._store.to_clean()).items():
            try:
                if await self._collector.remove(dest_path):
                    reached("cleaning.folder_removed")
                    done.append(ticket_id)
            except (Hold, AttemptFailed) as reason:
                held = reason  # perhaps this one only: the others get their turn
        if done:
            await self._store.cleaned(done)
            reached("cleaning.noted")
        if held is None:
            return len(done)
        await self._collector.check()
        # One folder that cannot be removed must not stop the fetching of all others.
        log.warning("folder_not_removed", detail=str(held))
        return 0
