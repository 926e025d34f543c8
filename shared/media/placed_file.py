"""Files that lie under a track's name already, placed by this or by another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.errors import CorruptAudio
from shared.media.paths import audio_uri, find_audio
from shared.media.place import storage_error
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, Verify, verify
from shared.threads import MEDIA

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A file that is the whole audio of its track; `uri` is relative to the media root."""

    uri: str
    facts: AudioFacts


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The whole file, None without one; and the files that are not whole."""

    whole: Whole | None
    refused: tuple[Path, ...]


async def find_placed(
    media_path: Path,
    track_id: str,
    *,
    expected_ms: int | None,
    tolerance_s: float,
    tools: AudioTools,
    check: Verify = verify,
) -> Placed:
    """Verify the files under this track's name, until one passes.

    Raises:
        Unavailable: the disk or ffmpeg cannot be used now.
        AttemptFailed: a file there cannot be read.
    """
    try:
        files = await MEDIA.run(find_audio, media_path, track_id)
    except OSError as error:
        raise storage_error(error, f"listing files of {track_id}") from error
    refused = []
    for file in files:
        try:
            facts = await check(file, expected_ms=expected_ms, tolerance_s=tolerance_s, tools=tools)
        except CorruptAudio as corrupt:
            log.warning("existing_file_refused", path=str(file), why=corrupt.message)
            refused.append(file)
            continue
        if f".{facts.ext}" == file.suffix:
            whole = Whole(uri=audio_uri(track_id, facts.ext), facts=facts)
            return Placed(whole=whole, refused=tuple(refused))
        log.warning("existing_file_misnamed", path=str(file), ext=facts.ext)
        refused.append(file)
    return Placed(whole=None, refused=tuple(refused))
