"""What an `audio_uri` leads to: a regular file inside the media root, nothing, or a refusal."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from shared.media.presence import NamedFile, Outside, named_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root behind a link, with a file in it and one outside."""
    real = tmp_path / "real"
    (real / "audio" / "xx").mkdir(parents=True)
    (real / "audio" / "xx" / "song ü.ogg").write_bytes(b"12345")
    (real / ".incoming").mkdir()
    (real / ".incoming" / "half.part").write_bytes(b"1")
    (tmp_path / "outside.ogg").write_bytes(b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "song.ogg").write_bytes(b"1")
    root = tmp_path / "media"
    root.symlink_to(real)
    return root


@pytest.mark.parametrize(
    "uri", ["audio/xx/song ü.ogg", "./audio/xx/song ü.ogg", "audio//xx/song ü.ogg"]
)
def test_a_file_in_the_root_is_found(root: Path, uri: str) -> None:
    """Also when the root itself is behind a link; the size and time are the file's."""
    found = named_file(root, uri)
    assert isinstance(found, NamedFile)
    assert (found.uri, found.size_bytes) == (uri, 5)
    assert found.path == (root / "audio/xx/song ü.ogg").resolve()


@pytest.mark.parametrize(
    "uri",
    [
        None, "", "audio/xx/gone.ogg", "Audio/xx/song ü.ogg", "audio/xx/Song ü.ogg",
        "audio/xx/song ü.ogg/", "audio/xx/song ü.ogg/x", "x" * 5000, "audio/loop",
        "audio/dangling",
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_no_file(root: Path, uri: str | None) -> None:
    """NULL, empty, gone, another case, a file taken for a folder, too long, a loop of links."""
    (root / "audio" / "loop").symlink_to("loop")
    (root / "audio" / "dangling").symlink_to("nothing")
    assert named_file(root, uri) is None


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("../outside.ogg", r"`\.\.`"),
        ("audio/../audio/xx/song ü.ogg", r"`\.\.`"),
        ("/etc/passwd", "absolute"),
        ("/nothing/here", "absolute"),
        ("audio/xx/a\0b", "NUL"),
        ("audio/link.ogg", "leads out of the media root"),
        ("audio/folder/song.ogg", "leads out of the media root"),
        ("audio/sibling/song.ogg", "leads out of the media root"),
        (".incoming/half.part", r"\.incoming"),
        ("./.incoming/half.part", r"\.incoming"),
        ("audio/into.part", r"\.incoming"),
        ("audio/xx", "folder"),
        (".", "folder"),
        ("audio/pipe", "no regular file"),
    ],
)
def test_what_may_not_be_used_is_refused(root: Path, uri: str, why: str) -> None:
    """The catalog server would serve all of these."""
    (root / "audio" / "link.ogg").symlink_to(root.parent / "outside.ogg")
    (root / "audio" / "folder").symlink_to(root.parent / "elsewhere")
    # Its name begins as the root's does.
    sibling = root.parent / "real-too"
    sibling.mkdir()
    (sibling / "song.ogg").write_bytes(b"1")
    (root / "audio" / "sibling").symlink_to(sibling)
    (root / "audio" / "into.part").symlink_to(root / ".incoming" / "half.part")
    os.mkfifo(root / "audio" / "pipe")
    found = named_file(root, uri)
    assert isinstance(found, Outside)
    assert found.uri == uri
    assert re.search(why, found.why)


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    """The file is where the link leads; its identity is the file's, whatever its name."""
    (root / "audio" / "alias.ogg").symlink_to("xx/song ü.ogg")
    one, other = named_file(root, "audio/alias.ogg"), named_file(root, "audio/xx/song ü.ogg")
    assert isinstance(one, NamedFile)
    assert isinstance(other, NamedFile)
    assert (one.path, one.inode) == (other.path, other.inode)


def test_a_disk_that_cannot_be_read_is_no_missing_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An I/O error is raised: nothing is called missing because of it."""

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "stat", broken)
    with pytest.raises(OSError, match="Input/output"):
        named_file(root, "audio/xx/song ü.ogg")
