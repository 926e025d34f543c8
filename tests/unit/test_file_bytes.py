"""Reading a file at any place: across blocks, and while it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.media.file_bytes import opened
from shared.media.frames import frames_of

# More than two blocks; the mark lies across their border for some of the places.
_SIZE = 600_000
_BORDERS = (0, 1, 262_141, 262_143, 262_144, 524_287, _SIZE - 4)


@pytest.mark.parametrize("at", _BORDERS)
def test_what_is_looked_for_is_found_anywhere(tmp_path: Path, at: int) -> None:
    """Also when the search begins there, and not when it ends before."""
    content = bytearray(_SIZE)
    content[at : at + 4] = b"OggS"
    path = tmp_path / "file"
    path.write_bytes(content)
    with opened(path) as data:
        assert data.find(b"OggS", 0) == at
        assert data.find(b"OggS", at) == at
        assert data.find(b"OggS", at + 1) == -1
        assert data.find(b"OggS", 0, at + 3) == -1
        assert data.read(at, 4) == b"OggS"
        assert data.read(_SIZE - 2, 10) == content[-2:]


def test_a_file_that_is_cut_meanwhile_ends_early(tmp_path: Path) -> None:
    """As one that a client writes anew: no bytes, and no end of the process."""
    path = tmp_path / "file"
    path.write_bytes(bytes(_SIZE))
    with opened(path) as data:
        os.truncate(path, 10)
        assert data.read(_SIZE - 8, 8) == b""
        assert data.find(b"OggS", 300_000) == -1


def test_tags_without_end_are_given_up(tmp_path: Path) -> None:
    """A megabyte of empty tags has no audio, and takes no time to tell."""
    path = tmp_path / "file"
    path.write_bytes(b"ID3\3\0\0\0\0\0\0" * 100_000)
    assert frames_of(path, "mp3", None) is None
