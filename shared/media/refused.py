"""Files that were refused, and are kept for a while.

Files under a track's name that were not whole are moved aside, under their name. Refused downloads
are kept under the ids of `refused_files`, so that one can be released. A download that is linked
from the torrent's folder stays a link: nothing here touches the torrent's own file.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog

from shared.crashpoints import reached
from shared.media.paths import INCOMING
from shared.media.place import stage, translated

log = structlog.get_logger()

# Long enough for an operator to inspect one.
KEPT_S = 30 * 86_400.0
KEPT_BYTES = 1024**3
# Of a kept download: a UUID.
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _folder(media_path: Path) -> Path:
    return media_path / INCOMING / "refused"


def move_aside(media_path: Path, files: Sequence[Path]) -> None:
    """Move these files of the media root aside, so that their names are free.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    folder = _folder(media_path)
    with translated("moving a broken file aside"):
        folder.mkdir(exist_ok=True)
        for file in files:
            try:
                file.rename(folder / f"{time.time_ns()}-{file.name}")
            except FileNotFoundError:
                log.info("refused_file_is_gone", file=str(file))


def prune_refused(
    media_path: Path,
    *,
    older_than_s: float = KEPT_S,
    keep_bytes: int = KEPT_BYTES,
    now_s: float | None = None,
) -> int:
    """Remove files that were moved aside long ago, and the oldest beyond `keep_bytes`.

    Returns how many files were removed.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    before_s = (time.time() if now_s is None else now_s) - older_than_s
    total_bytes = removed = 0
    with translated("removing files that were moved aside"):
        for moved_s, size_bytes, path in sorted(_found(_folder(media_path)), reverse=True):
            total_bytes += size_bytes
            if moved_s < before_s or total_bytes > keep_bytes:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def _kept_folder(media_path: Path) -> Path:
    return media_path / INCOMING / "kept"


def kept_file(media_path: Path, file_id: str) -> Path:
    """Where the refused download with this id is kept."""
    return _kept_folder(media_path) / file_id


def keep_refused(media_path: Path, temp: Path, file_id: str, *, most_bytes: int) -> int | None:
    """Move the refused download from its temporary name to the kept ones.

    Returns its size in bytes; None if there is no such file, or it is larger than `most_bytes`.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    target = kept_file(media_path, file_id)
    with translated("keeping a refused download"):
        try:
            size_bytes = temp.lstat().st_size
            if size_bytes > most_bytes:
                return None
            target.parent.mkdir(exist_ok=True)
            temp.rename(target)
        except FileNotFoundError:
            return None
    return size_bytes


def offer_kept(media_path: Path, file_id: str, temp: Path) -> bool:
    """Put the kept download at `temp` as well, without a copy where links are possible.

    Returns False if it is gone.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    source = kept_file(media_path, file_id)
    if source.is_symlink() or not source.is_file():
        return False
    try:
        os.link(source, temp, follow_symlinks=False)
    except OSError:
        stage(source, temp)  # it says what is wrong with the disk
    return True


def sweep_kept(
    media_path: Path, ids: Collection[str], *, older_than_s: float, now_s: float | None = None
) -> int:
    """Remove the kept downloads with these ids, if they were kept `older_than_s` ago.

    Returns how many files were removed.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    before_s = (time.time() if now_s is None else now_s) - older_than_s
    removed = 0
    with translated("removing refused downloads"):
        for kept_s, _, path in _found(_kept_folder(media_path)):
            if path.name in ids and kept_s < before_s:
                path.unlink(missing_ok=True)
                reached("reaper.kept_removed")
                removed += 1
    return removed


def kept_ids(media_path: Path) -> list[str]:
    """The ids of the kept downloads that are on the disk; names that are no id are left out.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be used now.
    """
    with translated("listing refused downloads"):
        found = _found(_kept_folder(media_path))
    return [path.name for _, _, path in found if _ID.fullmatch(path.name)]


def _found(folder: Path) -> list[tuple[float, int, Path]]:
    """For each file: when it was moved here (its change time), its size, its path."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_ctime, status.st_size, Path(entry.path)))
    except FileNotFoundError:
        pass  # no file was refused yet, or another reaper removes this one
    return found
