"""The paths of a track's files: one place for the writer, the scan and the events."""

from __future__ import annotations

import os
from pathlib import Path

from shared.media.extensions import PLAYABLE

# Below the media root and on its filesystem, so that placing a file is a link or a rename.
INCOMING = ".incoming"
AUDIO = "audio"


def audio_uri(track_id: str, ext: str) -> str:
    """The path of a track's file relative to the media root, with forward slashes."""
    return f"{AUDIO}/{track_id[0:2]}/{track_id[2:4]}/{track_id[4:6]}/{track_id}.{ext}"


def is_own(track_id: str, uri: str) -> bool:
    """Whether `uri` is the path of our rule for this track, with any extension."""
    return uri in {audio_uri(track_id, ext) for ext in PLAYABLE}


def audio_dir(media_path: Path, track_id: str) -> Path:
    """The folder that holds a track's file, whatever its extension."""
    return media_path / AUDIO / track_id[0:2] / track_id[2:4] / track_id[4:6]


def find_audio(media_path: Path, track_id: str) -> list[Path]:
    """The files with the id of this track, by name; empty when there is none.

    Raises:
        OSError: the folder exists and cannot be read.
    """
    try:
        names = sorted(entry.name for entry in audio_dir(media_path, track_id).iterdir())
    except FileNotFoundError:
        return []
    wanted = {f"{track_id}.{ext}" for ext in PLAYABLE}
    return [audio_dir(media_path, track_id) / name for name in names if name in wanted]


def taken_in_another_case(final: Path) -> str | None:
    """The name under which `final` exists on a filesystem that ignores case, if it is another name.

    Track ids may differ only by case: then it is another track's file.

    Raises:
        OSError: the folder cannot be read.
    """
    if not os.path.lexists(final):
        return None
    names = [entry.name for entry in final.parent.iterdir()]
    if final.name in names:
        return None
    return next((name for name in names if name.casefold() == final.name.casefold()), None)


def temp_file(media_path: Path, item_id: str, fence: int, number: int | None = None) -> Path:
    """The temporary file of one claim; the fence keeps two workers apart.

    Files beside the item's own are numbered.
    """
    more = "" if number is None else f".{number}"
    return media_path / INCOMING / f"{item_id}.{fence}{more}.part"


def source_uri(track_id: str, ext: str) -> str:
    """Where the original of a converted file is kept, relative to the media root."""
    return f"{INCOMING}/sources/{track_id[0:2]}/{track_id[2:4]}/{track_id[4:6]}/{track_id}.{ext}"
