"""A disk that fails at an exact call: every write of the file path goes through these."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from shared.media import place

# All of `os` that changes a filesystem, or opens a file on it.
CALLS = (
    *("open", "write", "fsync", "fchmod", "mkdir", "rmdir"),
    *("link", "unlink", "rename", "replace"),
)


class Disk:
    """Counts the calls that concern `folder`, and fails one of them, or all from it on."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.number = 0
        self.for_good = False
        self.failed = 0

    def sicken(self, at: int, number: int, *, for_good: bool = False) -> None:
        """Let the call `at` (counted from now, beginning with 0) fail with this errno."""
        self.calls, self.failed = [], 0
        self.fail_at, self.number, self.for_good = at, number, for_good

    def heal(self) -> None:
        """Everything works from now on."""
        self.fail_at, self.calls = None, []

    def call(self, name: str, real: Callable[..., Any], args: Any, named: Any) -> Any:
        """Carry out the call `name`, or fail it, if it concerns the folder."""
        if not any(self._concerns(each) for each in (*args[:2], named.get("src_dir_fd"))):
            return real(*args, **named)
        place = len(self.calls)
        self.calls.append(name)
        if self.fail_at is not None and (
            place == self.fail_at or (self.for_good and place > self.fail_at)
        ):
            self.failed += 1
            named_file = None if isinstance(args[0], int) else str(args[0])
            raise OSError(self.number, os.strerror(self.number), named_file)
        return real(*args, **named)

    def _concerns(self, what: object) -> bool:
        if isinstance(what, int) and not isinstance(what, bool):
            try:
                what = os.readlink(f"/proc/self/fd/{what}")  # noqa: PTH115 (not one of our paths)
            except OSError:
                return False
        return isinstance(what, str | os.PathLike) and str(what).startswith(self._folder)


@contextmanager
def watched_disk(folder: Path) -> Iterator[Disk]:
    """Below `folder` every call goes through the returned disk while the block runs."""
    disk = Disk(folder)
    patches = []
    for name in CALLS:
        real = getattr(os, name)

        def through(*args: Any, _name: str = name, _real: Any = real, **named: Any) -> Any:
            return disk.call(_name, _real, args, named)

        patches.append(patch.object(os, name, through))
    for each in patches:
        each.start()
    try:
        yield disk
    finally:
        for each in patches:
            each.stop()


# What reads a file, or a folder.
READS = ("open", "scandir", "read", "listdir")


@contextmanager
def withheld(paths: Mapping[Path, int]) -> Iterator[None]:
    """Reading one of these paths, or what is below it, fails with its errno, for the block."""
    patches = [patch.object(os, name, _withholding(getattr(os, name), paths)) for name in READS]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def _withholding(real: Callable[..., Any], paths: Mapping[Path, int]) -> Callable[..., Any]:
    def through(what: Any = ".", *args: Any, **named: Any) -> Any:
        found = _path_of(what, named.get("dir_fd"))
        for path, number in paths.items():
            if found == path or path in found.parents:
                shown = what if isinstance(what, str | os.PathLike) else None
                raise OSError(number, os.strerror(number), shown and str(shown))
        return real(what, *args, **named)

    return through


def _path_of(what: Any, folder_fd: int | None) -> Path:
    def of_fd(number: int) -> Path:
        try:
            return Path(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
        except OSError:
            return Path("/nowhere")

    if isinstance(what, int):
        return of_fd(what)
    above = Path() if folder_fd is None else of_fd(folder_fd)
    return above / os.fsdecode(what)


@contextmanager
def refused_names(paths: Collection[Path], number: int) -> Iterator[None]:
    """A link or rename to one of these paths, or below it, fails while the block runs."""

    def refuse(source: Any, target: Any) -> None:
        made = Path(os.fsdecode(target))
        if any(made == each or each in made.parents for each in paths):
            raise OSError(number, os.strerror(number), str(source), None, str(target))

    def checked(real: Callable[..., Any]) -> Callable[..., Any]:
        def through(source: Any, target: Any, *args: Any, **named: Any) -> Any:
            refuse(source, target)
            return real(source, target, *args, **named)

        return through

    def exchanged(temp: Path, final: Path) -> int:
        try:
            refuse(temp, final)
        except OSError as error:
            return error.errno or 0
        return renameat2(temp, final)

    renameat2 = place.renameat2
    with ExitStack() as patches:
        for name in ("link", "rename", "replace"):
            patches.enter_context(patch.object(os, name, checked(getattr(os, name))))
        patches.enter_context(patch.object(place, "renameat2", exchanged))
        yield
