"""From where to where a file has audio, how long that is, and whether its end is there.

ffprobe tells the length that a container states, or an estimate. What the bytes themselves show is
found here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from shared.media.frames import frames_of
from shared.media.ogg import pages_of
from shared.media.tails import audio_end
from shared.media.wav import samples_of


class End(Enum):
    """What the end of a file shows."""

    # Nothing speaks against it.
    WHOLE = "whole"
    # It lacks the mark that such files have at their end.
    UNMARKED = "unmarked"
    # A part of a frame or page, or bytes that are none.
    CUT = "cut"


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The audio from `start` to `end`, in bytes; None: to the file's end.

    `duration_s` is what the container states, or the length of the frames that are there; None
    where nothing states it. `counted_s` is what the header of an MP3 counts, which may be of
    another file: of the longer one from which this one was cut, or of the first one of several.
    """

    start: int = 0
    end: int | None = None
    duration_s: float | None = None
    counted_s: float | None = None
    at_end: End = End.WHOLE
    # Whether bytes between its frames or pages are none.
    broken: bool = False


def extent_of(path: Path, container: str, start: int, told_s: float | None) -> Extent:
    """The extent of a file whose container ffprobe has told, with this length. Blocks."""
    plain = Extent(start=start, end=audio_end(path), duration_s=told_s)
    match container:
        case "mp3" | "adts":
            return _of_frames(path, container, plain)
        case "ogg":
            return _of_pages(path, plain)
        case "wav":
            return _of_samples(path, plain)
    return plain


def _of_frames(path: Path, container: str, plain: Extent) -> Extent:
    frames = frames_of(path, container, plain.end)
    if frames is None:
        return replace(plain, duration_s=None)
    return replace(
        plain,
        end=frames.end if frames.end < path.stat().st_size else None,
        duration_s=frames.seconds,
        counted_s=frames.counted_s,
        at_end=End.CUT if frames.cut else End.WHOLE,
        broken=frames.broken,
    )


def _of_pages(path: Path, plain: Extent) -> Extent:
    pages = pages_of(path)
    if pages is None or not pages.complete:
        return replace(plain, at_end=End.CUT)
    return replace(
        plain,
        end=pages.end if pages.end < path.stat().st_size else None,
        # ffprobe tells that of the last stream.
        duration_s=None if pages.chained else plain.duration_s,
        at_end=End.WHOLE if pages.marked else End.UNMARKED,
        broken=pages.broken,
    )


def _of_samples(path: Path, plain: Extent) -> Extent:
    samples = samples_of(path, plain.start)
    if samples is None:
        return plain
    return replace(
        plain,
        end=samples.end or plain.end,
        duration_s=samples.seconds or plain.duration_s if samples.stated else None,
    )
