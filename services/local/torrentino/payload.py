"""The data of a torrent on disk, below the client's save path."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from services.local.torrentino.content import TorrentFile


def write(files: Sequence[TorrentFile], save_path: Path) -> None:
    """Copy every file to its place, replacing existing ones.

    Copies, not links: a service that changes a download in place must not reach the sources.

    Raises:
        OSError: a source is missing, or the place cannot be written.
    """
    for file in files:
        shutil.copyfile(file.source, _fresh(file, save_path))


def begin(files: Sequence[TorrentFile], save_path: Path, *, share: float) -> None:
    """Give every file its full size: `share` of its bytes, then zeros.

    Raises:
        OSError: as `write`.
    """
    for file in files:
        size_bytes = file.source.stat().st_size
        with file.source.open("rb") as reading, _fresh(file, save_path).open("wb") as writing:
            writing.write(reading.read(int(size_bytes * share)))
            writing.truncate(size_bytes)


def first_there(files: Sequence[TorrentFile], save_path: Path) -> Path | None:
    """The first of the files' places that already exists."""
    places = (save_path / file.path for file in files)
    return next((place for place in places if place.exists()), None)


def is_whole(files: Sequence[TorrentFile], save_path: Path) -> bool:
    """Whether all of the data is there, byte for byte."""
    try:
        return bool(files) and all(
            filecmp.cmp(file.source, save_path / file.path, shallow=False) for file in files
        )
    except OSError:
        return False


def remove(files: Sequence[TorrentFile], save_path: Path) -> None:
    """Remove the files that `write` made, and the folders that are empty then."""
    for file in files:
        target = save_path / file.path
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == save_path or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _fresh(file: TorrentFile, save_path: Path) -> Path:
    """The file's place, after removing what was there: other links to it must not change."""
    target = save_path / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    return target
