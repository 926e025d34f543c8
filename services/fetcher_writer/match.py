"""Which file of a ticket is which track, decided once for all items of the ticket.

Names decide first. Then the likely files are measured, and all others, up to a bound, where that
leaves a doubt. Files that may be copies of one recording are compared by their decoded audio. An
album in one file with a CUE sheet is offered as parts. There is no guess: a track without a sure
file ends with `NeedsChoice` or `LacksTrack`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from services.fetcher_writer import sheets
from services.fetcher_writer.collected_files import CollectedFiles, Measured, OutOfTime
from services.fetcher_writer.delivery.base import DeliveredFile
from services.fetcher_writer.delivery.candidates import is_named_audio
from services.fetcher_writer.delivery.collector import Candidates
from services.fetcher_writer.matched import Found, LacksTrack, NeedsChoice
from services.fetcher_writer.store import Store
from services.fetcher_writer.work import Ticket, Work
from shared.crashpoints import reached
from shared.errors import AttemptFailed, CorruptAudio, ErrorType
from shared.lengths import tolerance_of
from shared.matching import images
from shared.matching.assign import (
    assign,
    names_another_recording,
    to_compare,
    to_measure,
)
from shared.matching.cue import CueSheet
from shared.matching.model import Assignment, Offered
from shared.media.extensions import without_appended
from shared.tracks import CatalogTrack

log = structlog.get_logger()

# Bounds of what is collected only to be measured. A box of 20 discs has more: its names decide.
_MOST_MEASURED = 150
_MOST_MEASURED_BYTES = 16 * 1024**3
_MOST_EVIDENCE = 20
# How much more than the longest track is decoded to measure a file: it is then surely no track.
_BEYOND_S = 60.0
# Where the catalog has no length for any track.
_UNKNOWN_S = 3600.0
# Samples of a CD: two of 16 bits at 44.1 kHz.
_CD_BYTES_PER_S = 176_400
# Bounds of the files that are decoded to be compared, and of those without an ending that are read.
_MOST_COMPARED = 60
_MOST_UNNAMED = 40
_MAPPED_TRACK = re.compile(r"track-(\d{1,4})")
_NUMBER = re.compile(r"\s*0*(\d{1,3})(?!\d)")


ResultT = TypeVar("ResultT")


class TicketMatch:
    """Matches the files of one ticket to the tracks of its items. `close` it when they have ended.

    A task of its own does the matching: an item that is cancelled meanwhile cancels no other.
    """

    def __init__(
        self, works: Sequence[Work], *, store: Store, files: CollectedFiles, tolerance_s: float
    ) -> None:
        self._works = works
        self._store = store
        self.files = files
        self._tolerance_s = tolerance_s
        # By the path in the torrent: the file, what it offers, and what was measured of it.
        self._delivered: dict[str, DeliveredFile] = {}
        self._offers: dict[str, Offered] = {}
        self._measured: dict[str, Measured | None] = {}
        # By the same path: files that are not named as audio, and may be it.
        self._unnamed: dict[str, DeliveredFile] = {}
        # Torrentino's confidence, by path and track number.
        self._confidence: Mapping[str, Mapping[int, float]] = {}
        self._compared: set[str] = set()
        self._tracks: Sequence[CatalogTrack] = ()
        self._album: str | None = None
        # By the sheet's path, those that can be read.
        self._sheets: Mapping[str, CueSheet] = {}
        # How much of a file is decoded to measure it.
        self._longest_s = _UNKNOWN_S
        # The files that an administrator has chosen, by track id.
        self._chosen = {each.track_id: each.chosen_file for each in works if each.chosen_file}
        self._wanted = [each.track_id for each in works if not each.chosen_file]
        self._matching: asyncio.Task[Assignment] | None = None
        self._naming: asyncio.Task[Assignment] | None = None

    async def file_of(self, work: Work) -> Found:
        """The file that is the item's track.

        Raises:
            NeedsChoice: several files may be it.
            LacksTrack: no file is it.
            CorruptAudio: it is not known, and the files take too long to measure.
            AttemptFailed: the files are not there, none is audio, or the chosen file is not there.
            Unavailable: the files cannot be read now.
        """
        if self._matching is None:
            name = f"match {self.files.ticket.id}"
            self._matching = asyncio.create_task(self._match(), name=name)
        result = await asyncio.shield(self._matching)
        reached("fetcher.assigned")
        if work.track_id in result.sure:
            return self._found(result.sure[work.track_id])
        if work.chosen_file:
            return self._found(self._choice(work.chosen_file))
        if self.files.out_of_time:
            raise self._too_slow()
        if work.track_id in result.doubtful:
            raise NeedsChoice(result.doubtful[work.track_id])
        lacks = LacksTrack(
            work.ticket.torrent_title or "what was downloaded",
            self._evidence(),
            duration_ms=work.duration_ms,
            tolerance_s=tolerance_of(work.duration_ms, self._tolerance_s),
        )
        lacks.called_so = await self._called_so(work, result)
        raise lacks

    async def _called_so(self, work: Work, result: Assignment) -> Found | None:
        """The file that would be the track, if the lengths did not say otherwise."""
        if self._naming is None:
            taken = {offer.name for offer in result.sure.values()}
            named = [
                replace(offer, duration_s=None)
                for offer in self._offers.values()
                if offer.start_s is None and offer.name not in taken
            ]
            deciding = asyncio.to_thread(
                assign,
                self._tracks,
                self._wanted,
                named,
                tolerance_s=self._tolerance_s,
                album=self._album,
            )
            self._naming = asyncio.create_task(deciding, name=f"name {self.files.ticket.id}")
        offer = (await asyncio.shield(self._naming)).sure.get(work.track_id)
        return None if offer is None or work.track_id in result.sure else self._found(offer)

    async def close(self) -> None:
        """Cancel the matching, and remove what was collected for it."""
        for task in filter(None, (self._matching, self._naming)):
            task.cancel("every item of the ticket has ended")
            await asyncio.gather(task, return_exceptions=True)
        await self.files.close()

    # --- in the task

    async def _match(self) -> Assignment:
        candidates = await self.files.candidates()
        self._offer(candidates)
        await self._compete()
        if self._is_plain(candidates):
            (offer,) = self._offers.values()
            if not await self._is_image(offer):
                sure = {self._works[0].track_id: offer}
                return Assignment(sure=sure, doubtful={}, missing=frozenset())
        beside = {_path_in_torrent(self.files.ticket, one.name): one for one in candidates.sheets}
        self._sheets = await sheets.readable(self.files, beside)
        self._longest_s = self._longest()
        result = await self._by_measure()
        if self._unnamed and not self._settled(result):
            result = await self._by_content()
        result = await self._by_audio(result)
        if not self._settled(result):
            result = await self._with_parts(result)
        self._log(result)
        return result

    def _offer(self, candidates: Candidates) -> None:
        ticket = self.files.ticket
        self._delivered = {_path_in_torrent(ticket, file.name): file for file in candidates.audio}
        named = {path: f for path, f in self._delivered.items() if is_named_audio(f.name)}
        if ticket.delivery == "torrent" and named:
            # Original names have an ending; a client may have lost that of one.
            self._unnamed = {path: f for path, f in self._delivered.items() if path not in named}
            self._delivered = named
        self._confidence = _mapped(ticket)
        self._offers = {path: self._unmeasured(path) for path in self._delivered}

    def _unmeasured(self, path: str) -> Offered:
        size_bytes = self._delivered[path].size_bytes
        return Offered(name=path, size_bytes=size_bytes, mapped=self._confidence.get(path, {}))

    def _is_plain(self, candidates: Candidates) -> bool:
        """Whether a ticket for one track brought one file: the verification decides.

        The length would not, if the file's name says that it is an instrumental.
        """
        alone = len(self._works) == len(self._delivered) == 1 and not candidates.sheets
        if not alone or self.files.ticket.kind != "track":
            return False
        (offer,) = self._offers.values()
        wanted = [track for track in self._tracks if track.id in self._wanted]
        return not any(names_another_recording(track, offer, self._album) for track in wanted)

    async def _compete(self) -> None:
        """Read the tracks that the files may be, without those that an administrator has decided.

        The album's name decides between the folders of a torrent of several albums.
        """
        albums = {work.album_id for work in self._works if work.album_id}
        competing = await self._store.competing(self.files.ticket, albums)
        self._tracks = [track for track in competing.tracks if track.id not in self._chosen]
        self._album = competing.album

    def _longest(self) -> float:
        """How much of a file may matter: the longest track, behind all others of its sheet."""
        lengths = [track.duration_ms for track in self._tracks]
        lengths += [work.duration_ms for work in self._works]
        longest_ms = max((length for length in lengths if length), default=_UNKNOWN_S * 1000)
        starts = [
            track.start_s
            for sheet in self._sheets.values()
            for file in sheet.files
            for track in file.tracks
        ]
        return max(starts, default=0.0) + longest_ms / 1000 + self._tolerance_s + _BEYOND_S

    async def _by_measure(self) -> Assignment:
        """Measure the files that names make likely; all files, where that settles not all."""
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
        offers = [offer for path, offer in self._offers.items() if path not in taken]
        # In a thread: it computes for seconds in the largest boxes, and leases have to be renewed.
        return await asyncio.to_thread(
            assign,
            self._tracks,
            self._wanted,
            offers,
            tolerance_s=self._tolerance_s,
            album=self._album,
        )

    async def _by_content(self) -> Assignment:
        """Offer as well what is not named as audio, but is it."""
        unnamed = dict(list(self._unnamed.items())[:_MOST_UNNAMED])
        self._delivered |= unnamed
        self._offers |= {path: self._unmeasured(path) for path in unnamed}
        await self._measure(self._measurable(unnamed))
        for path in unnamed:
            if self._measured.get(path) is None:
                self._offers.pop(path, None)
        return await self._assigned()

    async def _by_audio(self, result: Assignment) -> Assignment:
        """Compare the decoded audio of files that may be copies, until no more has to be known."""
        while rivals := [
            offer.name
            for offer in to_compare(result, list(self._offers.values()))
            if offer.name not in self._compared and offer.start_s is None
        ][: _MOST_COMPARED - len(self._compared)]:
            self._compared |= {*rivals}
            found = await _all([self.files.loudness(self._delivered[path]) for path in rivals])
            for path, loudness in zip(rivals, found, strict=True):
                if not isinstance(loudness, OutOfTime):
                    self._offers[path] = replace(self._offers[path], loudness=loudness)
            result = await self._assigned()
        return result

    def _measurable(self, paths: Iterable[str]) -> list[str]:
        """Those that are not measured yet, as many as the bounds allow."""
        if self.files.out_of_time:
            return []
        found: list[str] = []
        taken_bytes = sum(self._delivered[path].size_bytes for path in self._measured)
        left_bytes = _MOST_MEASURED_BYTES - taken_bytes
        for path in paths:
            if path in self._measured:
                continue
            left_bytes -= self._delivered[path].size_bytes
            too_many = len(self._measured) + len(found) >= _MOST_MEASURED
            if left_bytes < 0 or too_many:
                log.warning("too_much_to_measure", ticket_id=self.files.ticket.id)
                break
            found.append(path)
        return found

    async def _measure(self, paths: Sequence[str]) -> None:
        results = await _all(
            self.files.measure(self._delivered[path], longest_s=self._longest_s) for path in paths
        )
        for path, measured in zip(paths, results, strict=True):
            if isinstance(measured, OutOfTime):
                continue
            self._measured[path] = measured
            if measured is not None:
                self._offers[path] = _with_measure(self._offers[path], measured)
            elif not is_named_audio(self._delivered[path].name):
                # It is not audio. A file that is named as audio stays: its track fails by it.
                del self._offers[path]

    async def _is_image(self, offer: Offered) -> bool:
        """Whether the only file of a track's ticket has a sheet of several tracks in itself.

        Not if it is smaller than the track is as samples of a CD.
        """
        length_ms = self._works[0].duration_ms
        if not length_ms or offer.size_bytes < length_ms / 1000 * _CD_BYTES_PER_S:
            return False
        await self._measure(self._measurable([offer.name]))
        return bool(await sheets.embedded(self.files, self._delivered, self._measured))

    async def _with_parts(self, whole: Assignment) -> Assignment:
        """`whole`, or the assignment with the parts of each image instead of the image.

        A damaged image has no parts.
        """
        inside = await sheets.embedded(self.files, self._delivered, self._measured)
        parts = await sheets.parts(
            self._sheets, inside, self._offers, self._tracks, tolerance_s=self._tolerance_s
        )
        files = dict(self._offers)
        damaged: set[str] = set()
        result = whole
        while parts := [part for part in parts if part.file_name not in damaged]:
            split = {part.file_name for part in parts}
            self._offers = {path: one for path, one in files.items() if path not in split}
            self._offers |= {part.name: part for part in parts}
            result = await self._assigned()
            result = images.doubted(result, parts, self._tracks, tolerance_s=self._tolerance_s)
            needed = {*result.sure.values(), *(p for p in parts if p.name in self._chosen.values())}
            new = {
                path for path in {one.file_name for one in needed} & split if await self._bad(path)
            }
            if not new:
                return result
            damaged |= new
        self._offers = files
        return whole

    async def _bad(self, path: str) -> bool:
        try:
            await self.files.verified(self._delivered[path], most_s=self._longest_s)
        except OutOfTime:
            return True
        except AttemptFailed as failure:
            log.info("cue_image_damaged", file=path, why=failure.message)
            return True
        return False

    def _settled(self, result: Assignment) -> bool:
        """Whether each wanted track has its file, known by more than its name."""
        sure = [result.sure.get(track_id) for track_id in self._wanted]
        return all(path in self._offers for path in self._chosen.values()) and all(
            offer is not None and (offer.duration_s is not None or offer.name in self._measured)
            for offer in sure
        )

    def _log(self, result: Assignment) -> None:
        log.info(
            "files_sorted",
            ticket_id=self.files.ticket.id,
            files=len(self._delivered),
            measured=len(self._measured),
            sure=len(result.sure),
            doubtful=len(result.doubtful),
            missing=len(result.missing),
        )

    # --- what an item gets

    def _found(self, offer: Offered) -> Found:
        return Found(file=self._delivered[offer.file_name], offer=offer)

    def _choice(self, path: str) -> Offered:
        if path in self._offers:
            return self._offers[path]
        raise AttemptFailed(
            ErrorType.NOT_FOUND,
            "the file that was chosen is not among the ticket's files",
            {"chosen": path, "files": self._evidence()},
        )

    def _too_slow(self) -> CorruptAudio:
        unmeasured = [path for path in self._delivered if path not in self._measured]
        message = (
            f"its files take longer to measure than {self.files.budget_s:g} s:"
            f" {len(unmeasured)} of {len(self._delivered)} were not measured"
        )
        shown = [path[:500] for path in sorted(unmeasured)[:_MOST_EVIDENCE]]
        return CorruptAudio(message, {"rule": "too_much_work", "unmeasured": shown})

    def _evidence(self) -> list[Mapping[str, object]]:
        shown = sorted(self._offers.values(), key=lambda offer: offer.name)[:_MOST_EVIDENCE]
        return [{"file": each.name[:500], "duration_s": each.duration_s} for each in shown]


async def _all(
    measures: Iterable[Coroutine[None, None, ResultT]],
) -> list[ResultT | OutOfTime]:
    """The results of all, when the last one has ended; or else the first other error."""
    found: list[ResultT | OutOfTime] = []
    for each in await asyncio.gather(*measures, return_exceptions=True):
        if isinstance(each, BaseException) and not isinstance(each, OutOfTime):
            raise each
        found.append(each)
    return found


def _path_in_torrent(ticket: Ticket, name: str) -> str:
    """The file's path in the torrent, with the root folder where that is known."""
    if ticket.delivery == "torrent":
        root = ticket.path.rstrip("/").rpartition("/")[2]
        # A torrent that is one file has no folder.
        return name if name == root else f"{root}/{name}"
    return ticket.processed_files.get(name) or without_appended(name)


def _mapped(ticket: Ticket) -> dict[str, dict[int, float]]:
    """Torrentino's confidence that a file is a track: by the file's path, by track number."""
    found: dict[str, dict[int, float]] = {}
    for mapping in ticket.file_mappings:
        number = _MAPPED_TRACK.fullmatch(str(mapping.get("item_id")))
        path, confidence = mapping.get("path"), mapping.get("confidence")
        if number and isinstance(path, str) and isinstance(confidence, int | float):
            of_file = found.setdefault(path, {})
            of_file[int(number[1])] = min(1.0, max(0.0, float(confidence)))
    return found


def _with_measure(offer: Offered, measured: Measured) -> Offered:
    """The offer with the file's length and tags."""
    tags = measured.probed.tags
    return replace(
        offer,
        duration_s=measured.duration_s,
        title=tags.get("title"),
        disc=_number(tags, "disc"),
        number=_number(tags, "track"),
        channels=measured.probed.channels,
        sample_rate_hz=measured.probed.sample_rate_hz,
    )


def _number(tags: Mapping[str, str], name: str) -> int | None:
    """The number of "3", "03" or "3/12"; some programs write 0 for an unknown one."""
    match = _NUMBER.match(tags.get(name, ""))
    return int(match[1]) or None if match else None
