"""Which of a track's files is its whole audio: the decode behind `shared.db.presence`."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.db.ledger import unreadable
from shared.db.presence import Problem, Seen, problem
from shared.errors import AttemptFailed, Conflict, Unexplained
from shared.media.paths import is_own
from shared.media.placed_file import Whole, find_placed
from shared.media.presence import NamedFile, named_file
from shared.media.tools import AudioTools
from shared.media.verify import AudioFacts, Verify, verify
from shared.threads import MEDIA

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Present:
    """The whole file of a track, None without one.

    `broken`: what the catalog names is not its whole audio, and another program placed it.
    `refused` are the files under the track's own name that are not whole.
    """

    whole: Whole | None
    broken: Problem | None = None
    refused: tuple[Path, ...] = ()


async def present(
    root: Path,
    seen: Seen,
    *,
    expected_ms: int | None,
    tolerance_s: float,
    tools: AudioTools,
    check: Verify = verify,
) -> Present:
    """Decode the files of a track, by `check`, until one is whole.

    Raises:
        Unavailable: the disk or ffmpeg cannot be used now, or a file is being written.
        AttemptFailed: a file under the track's own name cannot be read.
    """
    broken = seen.broken
    for file in seen.candidates:
        checking = check(file.path, expected_ms=expected_ms, tolerance_s=tolerance_s, tools=tools)
        whole = await _whole(root, file, checking)
        if isinstance(whole, Whole):
            return Present(whole=whole, broken=broken)
        if whole is not None and not is_own(seen.track_id, file.uri):
            broken = broken or problem(seen.track_id, file.uri, "broken", whole, file)
    if not seen.own:
        return Present(whole=None, broken=broken)
    own = await find_placed(
        root,
        seen.track_id,
        expected_ms=expected_ms,
        tolerance_s=tolerance_s,
        tools=tools,
        check=check,
    )
    return Present(whole=own.whole, broken=broken, refused=own.refused)


async def _whole(
    root: Path, file: NamedFile, checking: Awaitable[AudioFacts]
) -> Whole | str | None:
    """The facts of the file, or why it is not whole; None: it is gone."""
    try:
        found: Whole | str = Whole(uri=file.uri, facts=await checking)
    except AttemptFailed as failure:
        found = failure.message
    try:
        now = await MEDIA.run(named_file, root, file.uri)
    except OSError as error:
        raise unreadable(error, f"reading the status of {file.uri}") from error
    if not isinstance(now, NamedFile):
        return None
    if now != file:
        raise Unexplained("media", f"{file.uri} was written to while it was verified")
    if isinstance(found, str):
        log.warning("named_file_refused", path=str(file.path), why=found)
    return found


def kept(broken: Problem) -> Conflict:
    """Why a track with this broken file is not fetched."""
    return Conflict(
        f"the catalog names {broken.audio_uri!r} for {broken.track_id}, which is not its whole"
        f" audio ({broken.detail}): repair or remove that file, or set REPLACE_BROKEN=true to have"
        " it replaced by a new one"
    )
