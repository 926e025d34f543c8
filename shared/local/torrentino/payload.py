"""The data of a torrent on disk, below the folder where the client saves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from shared.local.torrentino.content import TorrentFile


def write(files: Sequence[TorrentFile], save_path: Path) -> None:
    """Copy every file to its place, over what is there.

    Copies, not links: a service that changes a download in place must not reach the sources.

    Raises:
        OSError: a source is gone, or the place cannot be written.
    """
    for file in files:
        target = save_path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a new file: others may hold links to the old one
        shutil.copyfile(file.source, target)


def remove(files: Sequence[TorrentFile], save_path: Path) -> None:
    """Remove what `write` has made, and the folders that are empty without it."""
    for file in files:
        target = save_path / file.path
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == save_path or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
