"""How an item gets its file: one list of steps.

    placed already?  →  which file  →  collect  →  verify  →  convert  →  publish

A file that an administrator has released needs no matching, and its verdict does not count.

A step returns what the next step needs. Every other end is an error of the tree in `shared.errors`,
raised by the step where it arises: there is no value that means a failure. `outcomes.py` maps the
error to a move of the item. Whatever goes wrong, only whole, verified files appear under `audio/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from services.fetcher_writer.collected_files import CollectedFiles
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.finish import CONVERTED, Collected, Converter, Finished, verified
from services.fetcher_writer.kept_files import Keeper, Releases
from services.fetcher_writer.match import TicketMatch
from services.fetcher_writer.matched import Found, LacksTrack
from services.fetcher_writer.media import Media
from services.fetcher_writer.places import Places
from services.fetcher_writer.publish import Publisher
from services.fetcher_writer.store import Store
from services.fetcher_writer.turns import Turns
from services.fetcher_writer.work import ACTOR, Released, Work
from shared.announcer import Announcer
from shared.crashpoints import reached
from shared.db import moves
from shared.errors import AttemptFailed
from shared.media.place import discard
from shared.media.verify import AudioFacts
from shared.states import Stage
from shared.threads import MEDIA

log = structlog.get_logger()


class Recipe:
    """The steps; at most `concurrency` files are in work at once in this process.

    The tickets take turns.
    """

    def __init__(
        self,
        *,
        store: Store,
        collector: Collector,
        converter: Converter,
        publisher: Publisher,
        media: Media,
        announcer: Announcer,
        places: Places,
        concurrency: int,
        keeper: Keeper,
    ) -> None:
        self._store = store
        self.keeper = keeper
        self.releases = Releases(store, converter, media, announcer)
        self.collector = collector
        self._converter = converter
        self.publisher = publisher
        self.media = media
        self._announcer = announcer
        self._places = places
        self.turns = Turns(concurrency)

    def match(self, works: Sequence[Work]) -> TicketMatch:
        """The matching of the files of one ticket, which all of the works share."""
        first = works[0]
        files = CollectedFiles(
            first.ticket,
            first.claim,
            collector=self.collector,
            media=self.media,
            turn=partial(self.turns.turn, first.ticket.id),
        )
        return TicketMatch(
            works, store=self._store, files=files, tolerance_s=self.media.tolerance_s
        )

    async def run(self, work: Work, match: TicketMatch) -> None:
        """Take all steps for one item.

        Raises:
            DownloadsError: the item has no file; the class says what to do: see `outcomes.py`.
        """
        turn = partial(self.turns.turn, work.ticket.id)
        async with turn():
            placed = await self.publisher.placed_already(work)
        if placed is not None:
            await self.publisher.adopt(work, placed)
            return
        if work.released is not None:
            async with turn():
                await self._release(work, work.released)
            return
        # Without a place: each file that is measured for it takes one.
        try:
            found = await match.file_of(work)
        except LacksTrack as lacks:
            if lacks.called_so is not None and self.keeper.keeps:
                async with turn():
                    await self._collect_refused(work, lacks, lacks.called_so, match.files)
            raise
        async with turn():
            collected = await self.collect(work, found, match.files)
            facts = await self.verify(work, collected)
            finished = await self.convert(work, collected, facts)
            await self.publish(work, finished)

    async def collect(self, work: Work, found: Found, files: CollectedFiles) -> Collected:
        """Put the file, or the part of it that is the track, at the item's temporary name.

        Raises:
            AttemptFailed, Unavailable: as `CollectedFiles.take`.
        """
        await MEDIA.soon(self.media.root.still_there)
        path = self.media.temp(work.claim)
        how = await files.take(found.offer, found.file, path)
        reached("fetcher.staged")
        await self._places.proved(work.ticket.delivery)
        return Collected(path=path, how=how, name=found.offer.name)

    async def verify(self, work: Work, collected: Collected) -> AudioFacts:
        """The facts of the file, if it is the whole audio of the track.

        Raises:
            AttemptFailed, Unavailable: as `verified`.
            Stale: another worker has the item, or it was cancelled.
        """
        async with self._store.database.connection() as connection:
            await moves.advance(
                connection, [work.claim], Stage.VERIFYING, reason="decoding the file", actor=ACTOR
            )
        reached("fetcher.verifying")
        await self._announcer.announce()
        facts = await verified(collected, work, self.media)
        reached("fetcher.decoded")
        return facts

    async def convert(self, work: Work, collected: Collected, facts: AudioFacts) -> Finished:
        """The file in the wanted format; see `Converter.finished`."""
        return await self._converter.finished(work.claim, collected, facts)

    async def publish(self, work: Work, finished: Finished) -> None:
        """Give the file the track's name; see `Publisher.publish`."""
        await self.publisher.publish(work, finished)

    async def _collect_refused(
        self, work: Work, lacks: LacksTrack, found: Found, files: CollectedFiles
    ) -> None:
        """Put the file that only has another length at the item's temporary name, to be kept."""
        try:
            await self.collect(work, found, files)
        except AttemptFailed as failure:
            # What counts is that the torrent lacks the track.
            log.warning("refused_file_not_kept", item_id=work.claim.item_id, why=failure.message)
            return
        lacks.evidence["file"] = found.offer.name[:500]
        lacks.evidence["setting_s"] = self.media.tolerance_s

    async def _release(self, work: Work, released: Released) -> None:
        finished = await self.releases.finished(work, released)
        await self.publish(work, finished)

    async def clean_up(self, work: Work) -> None:
        """Remove the item's own temporary files, if they are still there."""
        for number in (None, CONVERTED):
            await MEDIA.run(discard, self.media.temp(work.claim, number))
