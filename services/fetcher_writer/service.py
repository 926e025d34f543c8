"""The fetcher-writer: from a finished ticket to a verified file under its final name.

For each item: look whether the file is there already, else find out which file of its ticket it is,
collect that under a temporary name, decode it to the end, and only then give it its name, in the
transaction that completes the item while the row is locked by our fence. Whatever goes wrong,
nothing else ever appears under `audio/`. docs/architecture.md, "Placing a file", goes through each
crash, and "Out of a torrent" says how files are told apart.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from services.fetcher_writer.collected_files import Samples
from services.fetcher_writer.converting import Converter, Original
from services.fetcher_writer.delivery.base import DeliveryName
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.disk_budget import MediaRoom, Room
from services.fetcher_writer.finish import Proven, prove
from services.fetcher_writer.match import Found, Lacking, Sorting
from services.fetcher_writer.outcomes import ACTOR, Outcomes
from services.fetcher_writer.placing import give_name, keep_original
from services.fetcher_writer.sheets import take
from services.fetcher_writer.store import Store, hold
from services.fetcher_writer.work import Work
from shared.crashpoints import reached
from shared.db.items import advance
from shared.db.ledger import complete
from shared.db.media_root import MediaRoot
from shared.duty import PeriodicDuty, drain
from shared.errors import AttemptFailed, Dependency, DependencyDown, ErrorType, Stale, Unavailable
from shared.health import Health
from shared.leases import LeaseKeeper
from shared.matching.model import Doubt
from shared.media.paths import audio_uri, temp_file
from shared.media.place import discard
from shared.media.placed_file import look
from shared.media.refused import move_aside
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts
from shared.metrics import BYTES_PLACED, FILES_PLACED
from shared.states import Stage

log = structlog.get_logger()

# A file that Torrentino says is there may take a moment to be seen over a network.
_HAND_BACK_S = 5.0
_DISKS: tuple[Dependency, ...] = ("media", "space")
# Each turn moves aside what had taken the name meanwhile; more than this is no accident.
_TURNS = 3
# Of the numbered temporary files of an attempt; the others are samples.
_CONVERTED = 0


class FetcherWriter:
    """Has up to `concurrency` files in hand at once; `run_once` fills the free places.

    Items of one ticket come together, for only together can its files be told apart.
    """

    name = ACTOR

    def __init__(
        self,
        *,
        store: Store,
        collector: Collector,
        converter: Converter,
        outcomes: Outcomes,
        keep_source: bool,
        root: MediaRoot,
        leases: LeaseKeeper,
        tools: Callable[[], AudioTools],
        relay_wake: asyncio.Event,
        health: Health,
        rng: random.Random,
        concurrency: int,
        tolerance_s: float,
        min_free_mb: int,
        sweep_interval_s: float,
        cleaning: asyncio.Event,
    ) -> None:
        self._store = store
        self._collector = collector
        self._converter = converter
        self._keep_source = keep_source
        self._outcomes = outcomes
        self._root = root
        self._leases = leases
        self._tools = tools
        self._relay_wake = relay_wake
        self._health = health
        self._concurrency = concurrency
        self._tolerance_s = tolerance_s
        self._room = MediaRoom(root.path, min_free_mb=min_free_mb)
        self._working: set[asyncio.Task[None]] = set()
        self._in_hand = 0
        self._slots = asyncio.Semaphore(concurrency)
        self._held: Unavailable | None = None
        self._held_at = health.now()
        self._incoming = health.breaker("incoming")
        self._cleaning = cleaning
        self.loop = PeriodicDuty(
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
            Unavailable: a disk, ffmpeg or PostgreSQL cannot be used now.
        """
        held, self._held = self._held, None
        if held is not None and self._health.is_news(held, at=self._held_at):
            raise held
        free = self._allowance() - self._in_hand
        if free <= 0:
            return 0
        room = await self._check()
        works = await self._store.claim(free, room)
        # Only now: that there is some room does not say that what waits fits into it.
        self._health.up("space")
        if works:
            reached("fetcher.claimed")
        # Not when their tasks begin: the next run may come before that.
        self._in_hand += len(works)
        for batch in _by_ticket(works):
            ticket_id = batch[0].ticket.id
            task = asyncio.create_task(self._together(batch), name=f"fetch of {ticket_id}")
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        self._relay_wake.set()
        return len(works)

    async def _together(self, works: Sequence[Work]) -> None:
        """Work on items of one ticket, each by itself but for finding out which file is which."""
        sorting = self._sorting(works)
        tasks = []
        for work in works:
            name = f"fetch {work.claim.item_id}"
            task = asyncio.create_task(self._work(work, sorting), name=name)
            task.add_done_callback(self._done)
            tasks.append(task)
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel("stopping")
            await asyncio.gather(*tasks, return_exceptions=True)
            await sorting.close()

    def _sorting(self, works: Sequence[Work]) -> Sorting:
        first = works[0]
        samples = Samples(
            first.ticket,
            first.claim,
            collector=self._collector,
            root=self._root,
            slots=self._slots,
            tools=self._tools,
        )
        return Sorting(
            works,
            store=self._store,
            collector=self._collector,
            samples=samples,
            tolerance_s=self._tolerance_s,
        )

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_hand -= 1
        self.loop.wake.set()
        self._relay_wake.set()
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Unavailable):
            # PostgreSQL is away, so that nothing could be written down: the lease brings it back.
            log.warning("fetch_left_to_its_lease", task=task.get_name(), detail=str(error))
        else:
            log.error("fetch_failed", task=task.get_name(), exc_info=error)

    async def _check(self) -> Room | None:
        """What may be claimed; None: what is fetched takes no room of its own."""
        await self._root.check()
        free_bytes, total_bytes = await self._room.check()
        self._health.up("media")
        await asyncio.to_thread(self._tools)
        self._health.up("ffmpeg")
        if not self._incoming.ok:
            # Asked before anything is claimed: an outage must not fill the items' histories.
            await self._collector.check()
            self._health.up("incoming")
        copied = await self._collector.taking_room(self._root.path)
        if not copied and self._converter.idle:
            return None
        room = await self._room.room(free_bytes, total_bytes, self._times(copied))
        await self._store.put_off(room)
        return room

    def _times(self, copied: frozenset[DeliveryName]) -> dict[DeliveryName, int]:
        """How often a file is written: as it came, and converted."""
        again = 0 if self._converter.idle else 1
        names: tuple[DeliveryName, ...] = ("incoming", "torrent")
        return {name: again + (1 if name in copied else 0) for name in names}

    def _allowance(self) -> int:
        breakers = (*(self._health.breaker(name) for name in _DISKS), self._incoming)
        return min(breaker.allowance(self._concurrency) for breaker in breakers)

    async def _work(self, work: Work, sorting: Sorting) -> None:
        with self._leases.holding(work.claim):
            try:
                await self._attempt(work, sorting)
            except Stale as stale:
                log.info("lost_claim_dropped", item_id=work.claim.item_id, detail=str(stale))
            except AttemptFailed as failure:
                await self._outcomes.fail(work, failure)
            except Unavailable as held:
                self._held, self._held_at = held, self._health.now()
                await self._outcomes.hand_back(work, _HAND_BACK_S, str(held))
            except asyncio.CancelledError as reason:
                await asyncio.shield(self._outcomes.hand_back(work, 0.0, str(reason) or "stopping"))
                raise
            except Exception as bug:
                # Handed back it would fail again, for ever: a bug uses up attempts as well.
                log.exception("fetch_broke", item_id=work.claim.item_id)
                message = f"a bug of ours: {type(bug).__name__}: {bug}"[:500]
                await self._outcomes.fail(work, AttemptFailed(ErrorType.UNKNOWN, message))
            finally:
                reached("fetcher.ending")
                for number in (None, _CONVERTED):
                    await asyncio.to_thread(discard, self._temp(work, number))

    def _temp(self, work: Work, number: int | None = None) -> Path:
        return temp_file(self._root.path, work.claim.item_id, work.claim.fence, number)

    async def _attempt(self, work: Work, sorting: Sorting) -> None:
        try:
            await self._fetch(work, sorting)
        except AttemptFailed as failure:
            if failure.error_type is ErrorType.STORAGE:
                # Below an unmounted disk, too, files are not there; that is nobody's attempt.
                await self._root.check()
                await self._collector.check()
            raise

    async def _fetch(self, work: Work, sorting: Sorting) -> None:
        async with self._slots:
            existing = await self._look(work)
        if existing is not None:
            await self._adopt(work, existing)
            return
        # Without a slot: what has to be looked at for it takes one for each file.
        match await sorting.verdict(work):
            case Found() as found:
                async with self._slots:
                    await self._serve(work, found, sorting)
            case Doubt() as doubt:
                await self._outcomes.leave_to_a_person(work, doubt)
            case Lacking() as lacking:
                await self._outcomes.miss(work, lacking)

    async def _serve(self, work: Work, found: Found, sorting: Sorting) -> None:
        proven = await self._collect(work, found, sorting)
        for _ in range(_TURNS):
            if await self._place(work, proven):
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

    async def _collect(self, work: Work, found: Found, sorting: Sorting) -> Proven:
        """The file, verified and in the format that is wanted.

        Raises:
            AttemptFailed: it is not the right, whole audio.
        """
        await asyncio.to_thread(self._root.still_there)
        temp = self._temp(work)
        how = await take(found.offer, found.file, temp, sorting.samples, tools=self._tools())
        reached("fetcher.staged")
        await self._say_verifying(work)
        facts = await prove(
            temp, found.offer, work, tolerance_s=self._tolerance_s, tools=self._tools()
        )
        reached("fetcher.decoded")
        converted = await self._converter.convert(
            work.claim, temp, facts, self._temp(work, _CONVERTED), tools=self._tools()
        )
        if converted is None:
            return Proven(temp=temp, facts=facts, how=how)
        return Proven(
            temp=self._temp(work, _CONVERTED),
            facts=converted,
            how="converted",
            original=Original(temp=temp, ext=facts.ext) if self._keep_source else None,
        )

    async def _say_verifying(self, work: Work) -> None:
        self._health.up("incoming")
        async with self._store.database.connection() as connection:
            await advance(
                connection, work.claim, Stage.VERIFYING, reason="decoding the file", actor=ACTOR
            )
        reached("fetcher.verifying")

    async def _place(self, work: Work, proven: Proven) -> bool:
        """Give the file its name and complete the item; False when the name is taken."""
        facts, final = proven.facts, self._root.path / audio_uri(work.track_id, proven.facts.ext)
        async with self._store.database.transaction() as connection:
            # From here to the commit nobody else can move this item or place a file for it.
            await hold(connection, work.claim)
            reached("fetcher.locked")
            if proven.original is not None:
                await asyncio.to_thread(keep_original, self._root, work.track_id, proven.original)
            if not await asyncio.to_thread(give_name, self._root, proven.temp, final):
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
        FILES_PLACED.labels(proven.how).inc()
        BYTES_PLACED.inc(facts.size_bytes)
        log.info("file_placed", item_id=work.claim.item_id, path=str(final), how=proven.how)
        return True

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


def _by_ticket(works: Sequence[Work]) -> list[list[Work]]:
    """The works in batches of one ticket each, in the order of their first."""
    batches: dict[str, list[Work]] = {}
    for work in works:
        batches.setdefault(work.ticket.id, []).append(work)
    return list(batches.values())
