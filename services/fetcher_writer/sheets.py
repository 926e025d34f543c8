"""Albums that are one file, with a CUE sheet beside it that says where the tracks are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import structlog

from services.fetcher_writer.collected_files import Samples
from services.fetcher_writer.delivery.base import DeliveredFile
from shared.errors import AttemptFailed
from shared.matching.cue import MAX_BYTES, agreed, parse, parts
from shared.matching.model import Offered
from shared.media.cut import cut
from shared.media.tools import AudioTools

log = structlog.get_logger()

_MOST_SHEETS = 20
_CUT_TIMEOUT_S = 600.0


def image_of(part: str) -> str:
    """The name of the file that a part of this name is of."""
    return part.rpartition("#")[0]


async def parts_of(
    sheets: Mapping[str, DeliveredFile],
    offers: Collection[Offered],
    files: Mapping[str, DeliveredFile],
    samples: Samples,
) -> list[Offered]:
    """What the sheets (by their paths in the torrent) make of the measured files beside them.

    A sheet that is ambiguous, or whose file is damaged, makes nothing.

    Raises:
        Unavailable: the sheets cannot be had now.
    """
    told = {}
    for path, sheet in list(sheets.items())[:_MOST_SHEETS]:
        folder = path.rpartition("/")[0]
        beside = [each for each in offers if each.name.rpartition("/")[0] == folder]
        try:
            if sheet.size_bytes > MAX_BYTES:
                raise ValueError("it is too large for a sheet")
            told[path] = parts(parse(await samples.text(sheet)), beside)
        except (ValueError, AttemptFailed) as unusable:
            log.info("cue_sheet_unusable", sheet=path, why=str(unusable))
    found = agreed(told)
    damaged = await _damaged({image_of(part.name) for part in found}, files, samples)
    return [part for part in found if image_of(part.name) not in damaged]


async def _damaged(
    images: Collection[str], files: Mapping[str, DeliveredFile], samples: Samples
) -> set[str]:
    damaged = set()
    for name in images:
        try:
            await samples.prove(files[name])
        except AttemptFailed as failure:
            log.info("cue_image_damaged", file=name, why=failure.message)
            damaged.add(name)
    return damaged


async def take(
    offer: Offered, file: DeliveredFile, temp: Path, samples: Samples, *, tools: AudioTools
) -> str:
    """Put the file, or the part of it that is offered, at `temp`; returns how.

    Raises:
        AttemptFailed: it is gone, or cannot be cut.
        Unavailable: the place, our disk or ffmpeg cannot do it now.
    """
    if offer.start_s is None:
        return await samples.take(file, temp)
    await cut(
        await samples.keep(file),
        temp,
        start_s=offer.start_s,
        end_s=offer.end_s,
        facts=await samples.prove(file),
        tools=tools,
        timeout_s=_CUT_TIMEOUT_S,
    )
    return "cut"
