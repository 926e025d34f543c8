"""The CUE sheets of a ticket's files: those beside the audio, and those in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from services.fetcher_writer.collected_files import CollectedFiles, Measured
from services.fetcher_writer.delivery.base import DeliveredFile
from shared.errors import AttemptFailed
from shared.matching import images
from shared.matching.cue import CueSheet, parse
from shared.matching.cue_block import parse_block
from shared.matching.cue_lines import MAX_BYTES
from shared.matching.model import Offered
from shared.tracks import CatalogTrack

log = structlog.get_logger()

# More than the discs of the largest boxes.
_MOST_SHEETS = 200


async def readable(
    files: CollectedFiles, sheets: Mapping[str, DeliveredFile]
) -> Mapping[str, CueSheet]:
    """The sheets that can be read, by their paths.

    Raises:
        Unavailable: the place or our disk cannot be used now.
    """
    found = {}
    for path, file in list(sheets.items())[:_MOST_SHEETS]:
        try:
            if file.size_bytes > MAX_BYTES:
                raise ValueError("it is too large for a sheet")
            found[path] = await asyncio.to_thread(parse, await files.text(file))
        except (ValueError, AttemptFailed) as unusable:
            log.info("cue_sheet_unusable", sheet=path, why=str(unusable))
    return found


async def embedded(
    files: CollectedFiles,
    delivered: Mapping[str, DeliveredFile],
    measured: Mapping[str, Measured | None],
) -> Mapping[str, Sequence[CueSheet]]:
    """The sheets that measured files have in themselves, by the files' paths: tags and blocks.

    Raises:
        Unavailable: the place or our disk cannot be used now.
    """
    found: dict[str, list[CueSheet]] = {}
    for path, of in measured.items():
        if of is None:
            continue
        try:
            found[path] = await _embedded(files, delivered[path], of)
        except (ValueError, AttemptFailed) as unusable:
            log.info("cue_sheet_unusable", sheet=path, why=str(unusable))
    return {path: of for path, of in found.items() if of}


async def parts(
    beside: Mapping[str, CueSheet],
    inside: Mapping[str, Sequence[CueSheet]],
    offers: Mapping[str, Offered],
    tracks: Sequence[CatalogTrack],
    *,
    tolerance_s: float,
) -> list[Offered]:
    """The parts that the sheets name of the offered files, by what `images.split` decides.

    A file has none if the catalog's lengths contradict a sheet that does not name it.
    """
    found = await asyncio.to_thread(images.split, beside, inside, list(offers.values()))
    for path, why in found.unused.items():
        log.info("cue_sheet_unusable", sheet=path, why=why)
    others = images.contradicted(found.parts, tracks, tolerance_s=tolerance_s)
    for path in others:
        log.info("cue_sheet_of_another_file", file=path)
    return [part for part in found.parts if part.file_name not in others]


async def _embedded(
    files: CollectedFiles, file: DeliveredFile, measured: Measured
) -> list[CueSheet]:
    found = []
    probed = measured.probed
    if tag := probed.tags.get("cuesheet"):
        found.append(await asyncio.to_thread(parse, tag.encode("utf-8", "replace")))
    if probed.container == "flac" and (block := await files.cue_sheet_block(file)):
        found.append(parse_block(block, probed.sample_rate_hz))
    return found
