"""What other programs leave in any folder: file managers, NAS systems, network filesystems.

Nothing of it was placed, and none of it is a track. Matched without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.fetcher_writer.delivery.base import DeliveredFile

_NAMES = frozenset(
    {
        *(".ds_store", ".localized", ".directory", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("ehthumbs_vista.db", ".nomedia", ".stignore", "albumartsmall.jpg"),
    }
)
# Deleted files that are still open on NFS and FUSE, macOS' metadata, temporary files of copies.
_BEGINNINGS = (
    ".nfs",
    ".fuse_hidden",
    "._",
    ".smbdelete",
    ".syncthing.",
    "~syncthing~",
    ".goutputs",
)
_ENDINGS = (
    *(".part", ".partial", ".filepart", ".crdownload", ".tmp", ".temp", ".aria2"),
    *(".!qb", ".!ut", ".!bt", ".!sync", ".swp", ".lock"),
)
_FOLDERS = frozenset(
    {
        *("@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot", ".@__thumb", ".streams"),
        *(".appledouble", ".appledb", ".appledesktop", ".trashes", ".fseventsd", ".temporaryitems"),
        *(".spotlight-v100", "__macosx", "$recycle.bin", "system volume information"),
        *("lost+found", ".snapshot", ".snapshots", ".zfs", ".stfolder", ".stversions", ".sync"),
    }
)
_FOLDER_BEGINNINGS = (".trash-",)


def is_foreign_folder(name: str) -> bool:
    """Whether a folder of this name is another program's, with all in it."""
    folded = name.casefold()
    return folded in _FOLDERS or folded.startswith(_FOLDER_BEGINNINGS)


def is_foreign_file(name: str) -> bool:
    """Whether a file of this name, without a path, is another program's."""
    folded = name.casefold()
    return folded in _NAMES or folded.startswith(_BEGINNINGS) or folded.endswith(_ENDINGS)


def without_foreign(files: Iterable[DeliveredFile]) -> list[DeliveredFile]:
    """The files that no other program has left there."""
    return [file for file in files if not is_foreign_file(file.name.rpartition("/")[2])]


def total_bytes(files: Sequence[DeliveredFile]) -> frozenset[int]:
    """The bytes of all these files, and of those that no other program has left there."""
    ours = without_foreign(files)
    return frozenset(sum(file.size_bytes for file in each) for each in (files, ours))
