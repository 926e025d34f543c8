"""The mark in a media root, which tells it from the empty mount point of an unmounted disk.

Everything here blocks on the disk: call it in a thread.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from shared.errors import DependencyDown
from shared.media.folders import flush_folder
from shared.media.paths import INCOMING
from shared.media.place import storage_error

_NAME = ".media-root"
_LIMIT_BYTES = 256


def _sentinel(media_path: Path) -> Path:
    return media_path / INCOMING / _NAME


def read_sentinel(media_path: Path) -> str | None:
    """The id in the mark of this media root; None without a mark. Blocks.

    Raises:
        DependencyDown, AttemptFailed: the disk cannot be read.
    """
    try:
        with _sentinel(media_path).open("rb") as file:
            return file.read(_LIMIT_BYTES).decode("utf-8", "replace").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise storage_error(exc, "reading the mark of the media root") from exc


def mark_of(installation: str) -> str:
    """A new mark, which names the installation whose media root it marks."""
    return f"{installation}.{uuid.uuid4()}"


def is_marked_by(mark: str, installation: str) -> bool:
    """Whether this installation has written the mark."""
    return mark.partition(".")[0] == installation


def ignores_case(media_path: Path) -> bool:
    """Whether the filesystem of this marked media root ignores case in names. Blocks."""
    sentinel = _sentinel(media_path)
    return os.path.lexists(sentinel.with_name(sentinel.name.upper()))


def write_sentinel(media_path: Path, root_id: str) -> None:
    """Write `root_id` as the mark of this media root, atomically and durably. Blocks.

    Raises:
        DependencyDown: the root is not there, or cannot be written.
    """
    check_root(media_path, None)
    target = _sentinel(media_path)
    temp = target.with_name(f"{_NAME}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(exist_ok=True)
        with temp.open("wb") as file:
            file.write(f"{root_id}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        temp.replace(target)
        flush_folder(target.parent)
        flush_folder(media_path)
    except OSError as exc:
        with suppress(OSError):
            temp.unlink(missing_ok=True)
        raise storage_error(exc, "marking the media root") from exc


def check_root(media_path: Path, expected_id: str | None) -> None:
    """Return when files may be written below `media_path`. Blocks.

    Raises:
        DependencyDown: it is not a folder, or its mark is not `expected_id`, if that is given.
    """
    try:
        there = media_path.is_dir()
    except OSError as exc:
        raise storage_error(exc, "reading the media root") from exc
    if not there:
        raise DependencyDown(
            "media", f"{media_path} is not a folder: mount the media disk, or correct MEDIA_PATH"
        )
    if expected_id is None:
        return
    found = read_sentinel(media_path)
    if found is None:
        raise DependencyDown(
            "media",
            f"{media_path} does not carry the mark {INCOMING}/{_NAME} that was written there:"
            " the disk is probably not mounted. Mount it; if the mark was deleted, write"
            f" {expected_id!r} into it",
        )
    if found != expected_id:
        raise DependencyDown(
            "media",
            f"{media_path} is another media root ({found!r}) than this database knows"
            f" ({expected_id!r}): mount the right disk, or correct MEDIA_PATH; if another database"
            " has taken it over by mistake, run `pezzottify-downloads media take-over`",
        )
