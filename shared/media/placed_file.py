"""Files that lie under a track's name already, placed by this or by another program."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.errors import CorruptAudio
from shared.media.paths import find_audio
from shared.media.place import storage_error
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, verify

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The facts and path of the whole file, None without one; and the files that are not whole."""

    facts: AudioFacts | None
    path: Path | None
    refused: tuple[Path, ...]


async def find_placed(
    media_path: Path,
    track_id: str,
    *,
    expected_ms: int | None,
    tolerance_s: float,
    tools: AudioTools,
) -> Placed:
    """Verify the files under this track's name, until one passes.

    Raises:
        Unavailable: the disk or ffmpeg cannot be used now.
        AttemptFailed: a file there cannot be read.
    """
    try:
        files = await asyncio.to_thread(find_audio, media_path, track_id)
    except OSError as error:
        raise storage_error(error, f"listing files of {track_id}") from error
    refused = []
    for file in files:
        try:
            facts = await verify(
                file, expected_ms=expected_ms, tolerance_s=tolerance_s, tools=tools
            )
        except CorruptAudio as corrupt:
            log.warning("existing_file_refused", path=str(file), why=corrupt.message)
            refused.append(file)
            continue
        if f".{facts.ext}" == file.suffix:
            return Placed(facts=facts, path=file, refused=tuple(refused))
        log.warning("existing_file_misnamed", path=str(file), ext=facts.ext)
        refused.append(file)
    return Placed(facts=None, path=None, refused=tuple(refused))
