"""Which file of a ticket is which track, found out once for all of its items.

First by the names; then the likely files are measured, and where that does not settle it all others
as well, up to a bound. What is not sure then is no guess: it is doubtful, or it is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.fetcher_writer.collected_files import Look, Samples
from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.candidates import is_named_audio
from services.fetcher_writer.delivery.collector import Candidates, Collector
from services.fetcher_writer.offering import offered, offers, with_measure
from services.fetcher_writer.sheets import image_of, parts_of
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import Work
from shared.crashpoints import reached
from shared.errors import AttemptFailed, ErrorType
from shared.matching.assign import assign, to_measure
from shared.matching.model import Assignment, Doubt, Offered
from shared.tracks import CatalogTrack

log = structlog.get_logger()

# What is collected only to be measured; a box of 20 discs is more, and its names have to do.
_MOST_MEASURED = 150
_MOST_MEASURED_BYTES = 16 * 1024**3
_MOST_EVIDENCE = 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """The file that is the track; of one that holds several tracks, the part."""

    file: DeliveredFile
    offer: Offered


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """The torrent does not have the track; what it has, for a person to see."""

    offers: Sequence[Mapping[str, object]]


Verdict = Found | Doubt | Lacking


class Sorting:
    """The files of the ticket that all of `works` have in common. `close` it when they have ended.

    What is found out is found out by a task of its own, so that an item that is given up on the
    way does not take the others with it.
    """

    def __init__(
        self,
        works: Sequence[Work],
        *,
        store: Store,
        collector: Collector,
        samples: Samples,
        tolerance_s: float,
    ) -> None:
        self._works = works
        self._ticket = works[0].ticket
        self._store = store
        self._collector = collector
        self.samples = samples
        self._tolerance_s = tolerance_s
        self._files: dict[str, DeliveredFile] = {}
        self._offers: dict[str, Offered] = {}
        self._looked: dict[str, Look | None] = {}
        self._tracks: list[CatalogTrack] = []
        # What a person has said, by track id; all else is for us to find out.
        self._chosen = {each.track_id: each.chosen_file for each in works if each.chosen_file}
        self._wanted = [each.track_id for each in works if not each.chosen_file]
        self._sorting: asyncio.Task[Mapping[str, Verdict]] | None = None

    async def verdict(self, work: Work) -> Verdict:
        """What the item's track is among the ticket's files.

        Raises:
            AttemptFailed: the files are not there, or none is audio, or the chosen one is gone.
            Unavailable: they cannot be looked at now.
        """
        if self._sorting is None:
            self._sorting = asyncio.create_task(self._sort(), name=f"sort {self._ticket.id}")
        verdicts = await asyncio.shield(self._sorting)
        reached("fetcher.assigned")
        if work.track_id in verdicts:
            return verdicts[work.track_id]
        raise AttemptFailed(
            ErrorType.NOT_FOUND,
            "the file that was chosen is not among the ticket's files",
            {"chosen": work.chosen_file, "files": self._evidence()},
        )

    async def close(self) -> None:
        """End what is still being found out, and remove what was collected for it."""
        if self._sorting is not None:
            self._sorting.cancel("nobody waits for it")
            await asyncio.gather(self._sorting, return_exceptions=True)
        await self.samples.close()

    # --- in the task

    async def _sort(self) -> Mapping[str, Verdict]:
        self._ticket = await self._collector.located(self._ticket)
        self.samples.come_from(self._ticket)
        candidates = await self._collector.candidates(self._ticket)
        self._offer(candidates)
        if self._is_plain(candidates):
            (name,) = self._files
            return {self._works[0].track_id: self._found(self._offers[name])}
        self._tracks = await self._competing()
        result = await self._by_measure()
        if candidates.sheets and not self._settled(result):
            await self._offer_parts(candidates.sheets)
            result = await self._assigned()
        self._tell(result)
        return self._verdicts(result)

    def _offer(self, candidates: Candidates) -> None:
        audio = candidates.audio
        if self._ticket.delivery == "torrent" and any(is_named_audio(file.name) for file in audio):
            # Under the names that they were published with, audio says that it is audio.
            audio = tuple(file for file in audio if is_named_audio(file.name))
        self._files = offers(self._ticket, audio)
        self._offers = {n: offered(self._ticket, n, file) for n, file in self._files.items()}

    def _is_plain(self, candidates: Candidates) -> bool:
        """Whether a track was asked for and one file came: the verification tells all."""
        alone = len(self._works) == len(self._files) == 1 and not candidates.sheets
        return alone and self._ticket.kind == "track"

    async def _competing(self) -> list[CatalogTrack]:
        """All that the files may be, but for what a person has decided."""
        albums = {work.album_id for work in self._works if work.album_id}
        tracks = await self._store.tracks(self._ticket, albums)
        return [track for track in tracks if track.id not in self._chosen]

    async def _by_measure(self) -> Assignment:
        """First those that the names speak for; all, where that does not settle it."""
        result = await self._assigned()
        while likely := self._measurable(
            offer.name for offer in to_measure(result, list(self._offers.values()))
        ):
            await self._measure(likely)
            result = await self._assigned()
        if not self._settled(result):
            await self._measure(self._measurable(self._offers))
            result = await self._assigned()
        return result

    async def _assigned(self) -> Assignment:
        taken = set(self._chosen.values())
        offers_ = [offer for name, offer in self._offers.items() if name not in taken]
        # Seconds of computing for the largest boxes: not where the leases are renewed.
        return await asyncio.to_thread(
            assign, self._tracks, self._wanted, offers_, tolerance_s=self._tolerance_s
        )

    def _measurable(self, names: Iterable[str]) -> list[str]:
        """Those that nobody has looked at, as many as the bounds allow."""
        found: list[str] = []
        left_bytes = _MOST_MEASURED_BYTES - sum(self._files[n].size_bytes for n in self._looked)
        for name in names:
            if name in self._looked:
                continue
            left_bytes -= self._files[name].size_bytes
            if left_bytes < 0 or len(self._looked) + len(found) >= _MOST_MEASURED:
                log.warning("too_much_to_measure", ticket_id=self._ticket.id)
                break
            found.append(name)
        return found

    async def _measure(self, names: Sequence[str]) -> None:
        looks = await _all([self.samples.look(self._files[name]) for name in names])
        for name, look in zip(names, looks, strict=True):
            self._note(name, look)

    def _note(self, name: str, look: Look | None) -> None:
        self._looked[name] = look
        if look is not None:
            self._offers[name] = with_measure(self._offers[name], look.claims, look.duration_s)
        elif not is_named_audio(self._files[name].name):
            # Nobody said that it is audio. What did stays, for its track to fail by it.
            del self._offers[name]

    async def _offer_parts(self, sheets: Collection[DeliveredFile]) -> None:
        """Where one file holds several tracks, offer them instead of it."""
        named = offers(self._ticket, sheets)
        parts = await parts_of(named, self._offers.values(), self._files, self.samples)
        for part in parts:
            self._offers.pop(image_of(part.name), None)
            self._offers[part.name] = part

    def _settled(self, result: Assignment) -> bool:
        """Whether every file that is needed is known by more than its name."""
        sure = [result.sure.get(track_id) for track_id in self._wanted]
        return all(name in self._offers for name in self._chosen.values()) and all(
            offer is not None and (offer.duration_s is not None or offer.name in self._looked)
            for offer in sure
        )

    def _verdicts(self, result: Assignment) -> Mapping[str, Verdict]:
        lacking = Lacking(offers=self._evidence())
        picked = {
            track_id: self._found(self._offers[name])
            for track_id, name in self._chosen.items()
            if name in self._offers
        }
        return {
            **{track_id: self._found(offer) for track_id, offer in result.sure.items()},
            **result.doubtful,
            **dict.fromkeys(result.missing, lacking),
            **picked,
        }

    def _found(self, offer: Offered) -> Found:
        name = offer.name if offer.start_s is None else image_of(offer.name)
        return Found(file=self._files[name], offer=offer)

    def _evidence(self) -> list[Mapping[str, object]]:
        shown = sorted(self._offers.values(), key=lambda offer: offer.name)[:_MOST_EVIDENCE]
        return [{"file": each.name[:500], "duration_s": each.duration_s} for each in shown]

    def _tell(self, result: Assignment) -> None:
        log.info(
            "files_sorted",
            ticket_id=self._ticket.id,
            files=len(self._files),
            measured=len(self._looked),
            sure=len(result.sure),
            doubtful=len(result.doubtful),
            missing=len(result.missing),
        )


async def _all(looks: Sequence[Coroutine[None, None, Look | None]]) -> list[Look | None]:
    """What all of them gave, when the last one has ended; or else the first one's error."""
    found = await asyncio.gather(*looks, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return [each for each in found if not isinstance(each, BaseException)]
