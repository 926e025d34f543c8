"""What the catalog server makes of a value of `tracks.audio_uri`."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def leads_to_a_file(media_path: Path, uri: bytes | None) -> bool:
    """Whether the server plays this value: it joins it to its media root, and wants it to exist.

    A value that may lead to a file which this process cannot see counts: it must not be changed.
    Blocks.

    Raises:
        OSError: the disk cannot be read.
    """
    if not uri:
        return False
    try:
        os.stat(os.path.join(os.fsencode(media_path), uri))  # noqa: PTH116, PTH118 (no text)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return False
        if error.errno in (errno.EACCES, errno.EPERM):
            return True
        raise
    return True


def is_outside(uri: bytes) -> bool:
    """Whether a value leads out of the media root by its text; the server serves that too."""
    flat = os.path.normpath(uri)
    return flat.startswith((b"/", b"../")) or flat == b".."
