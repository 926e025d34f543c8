"""The endings of audio files' names, in lower case without the dot.

An ending is a hint. What a file is, its content decides: see `shared.media.probe`.
"""

from __future__ import annotations

from shared.media.formats import ENDINGS

# What the catalog server plays: the only endings below the media root.
PLAYABLE = frozenset({"aac", "flac", "m4a", "mp3", "ogg", "opus", "wav", "wma"})

AUDIO = frozenset(ENDINGS)
LOSSLESS = frozenset(ending for ending, lossless in ENDINGS.items() if lossless is True)
LOSSY = frozenset(ending for ending, lossless in ENDINGS.items() if lossless is False)
# With the one ending that videos have as well.
AUDIO_OR_VIDEO = AUDIO | {"mp4"}

# What Torrentino appends to the name of each file that it places, converted or not.
_APPENDED = ".converted"


def without_appended(name: str) -> str:
    """The name that the file had before Torrentino placed it."""
    return name[: -len(_APPENDED)] if name.lower().endswith(_APPENDED) else name


def extension_of(path: str) -> str:
    """The ending of the last name in the path, in lower case; empty where there is none."""
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot else ""
