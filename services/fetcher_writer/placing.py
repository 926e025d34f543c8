"""Giving verified files their names. Everything here blocks on the disk: call it in a thread."""

from __future__ import annotations

from pathlib import Path

from services.fetcher_writer.converting import Original
from shared.crashpoints import reached
from shared.db.media_root import MediaRoot
from shared.errors import AttemptFailed, ErrorType
from shared.media.paths import source_uri, taken_in_another_case
from shared.media.place import publish, translated


def give_name(root: MediaRoot, temp: Path, final: Path) -> bool:
    """Give the file its final name; False when that is taken.

    Raises:
        AttemptFailed: REJECTED, another track has the place for ever.
        DependencyDown: the disk cannot be used now.
    """
    root.still_there()
    if publish(temp, final):
        return True
    with translated("looking at a name that is taken"):
        other = taken_in_another_case(final)
    if other is not None:
        raise AttemptFailed(
            ErrorType.REJECTED,
            f"{other} has the place of {final.name}: the filesystem of MEDIA_PATH does not"
            " tell upper from lower case, so it cannot hold both",
            {"path": str(final), "taken_by": other},
        )
    return False


def keep_original(root: MediaRoot, track_id: str, original: Original) -> None:
    """Put the file aside that the one to be placed was made from.

    Call it before that has its name: once it has, nobody would fetch this one again.

    Raises:
        DependencyDown: the disk cannot be used now.
    """
    root.still_there()
    kept = root.path / source_uri(track_id, original.ext)
    # After a turn that found the name taken it is there already.
    if original.temp.exists():
        publish(original.temp, kept, replace=True)
        reached("fetcher.source_kept")
