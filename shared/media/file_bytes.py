"""The bytes of a file at any place, read in blocks as they are asked for.

The file is not mapped into memory: where its disk fails, or it is cut meanwhile, a map would end
the process, and a read is an error or ends early.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK_BYTES = 256 * 1024


class FileBytes:
    """Made by `opened`. Its methods block, and raise OSError where the disk does."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self._begin, self._block = 0, b""

    def read(self, at: int, size: int) -> bytes:
        """The bytes from there, or as many as there are."""
        begin = at - self._begin
        if begin < 0 or begin + size > len(self._block):
            self._load(at, size)
            begin = 0
        return self._block[begin : begin + size]

    def find(self, wanted: bytes, at: int, end: int | None = None) -> int:
        """Where these bytes are next, from `at` and before `end`; -1: nowhere."""
        end = self.size if end is None else min(end, self.size)
        while at + len(wanted) <= end:
            begin = at - self._begin
            if begin < 0 or begin + len(wanted) > len(self._block):
                self._load(at, len(wanted))
                begin = 0
            found = self._block.find(wanted, begin, end - self._begin)
            if found >= 0:
                return self._begin + found
            if begin + len(wanted) > len(self._block):
                break  # the file is shorter by now
            at = self._begin + len(self._block) - len(wanted) + 1
        return -1

    def _load(self, at: int, size: int) -> None:
        self._begin, self._block = at, os.pread(self._fd, max(size, _BLOCK_BYTES), at)


@contextmanager
def opened(path: Path) -> Iterator[FileBytes]:
    """The bytes of a file. Blocks, and raises OSError if it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield FileBytes(fd)
    finally:
        os.close(fd)
