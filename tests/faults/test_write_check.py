"""The check of a media root does what placing a file does, and leaves nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from shared.errors import DependencyDown, Misconfigured, Unavailable
from shared.media import folders, place
from shared.media.place import publish
from shared.media.write_check import CHECKED, check_writing
from tests.support.mounts import tmpfs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with a track's file, which nothing may touch."""
    media = tmp_path / "media"
    (media / ".incoming").mkdir(parents=True)
    (media / "audio" / "aa").mkdir(parents=True)
    (media / "audio" / "aa" / "song.flac").write_bytes(b"song")
    return media


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


SONG = ["audio/aa/song.flac"]


def fsync_failing(number: int, *, of: Callable[[Path], bool]) -> Callable[[int], None]:
    real = os.fsync

    def fsync(fd: int) -> None:
        if of(Path(os.readlink(f"/proc/self/fd/{fd}"))):  # noqa: PTH115
            raise OSError(number, os.strerror(number))
        real(fd)

    return fsync


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def test_it_leaves_nothing(root: Path) -> None:
    check_writing(root)
    assert left(root) == SONG


def test_an_empty_root_is_made_ready(tmp_path: Path) -> None:
    check_writing(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".incoming", "audio"]
    assert left(tmp_path) == []


def test_audio_on_another_mount_is_a_setting(root: Path) -> None:
    """F18: as the kernel answers it; one line says what to do."""
    with tmpfs(root / "audio", kib=512):
        with pytest.raises(
            Misconfigured, match=r"two mounts.*mount one folder or volume"
        ) as caught:
            check_writing(root)
        assert left(root) == []
    assert caught.value.dependency == "media_write"
    assert left(root) == SONG


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_filesystem_that_refuses_names(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """F18: neither a link, nor a rename that replaces nothing, nor a plain one."""
    monkeypatch.setattr(os, "link", refusing(number))
    monkeypatch.setattr(os, "rename", refusing(number))
    monkeypatch.setattr(place, "renameat2", lambda *_: number)
    with pytest.raises(Misconfigured, match="refuses to place a file"):
        check_writing(root)
    assert left(root) == SONG


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_folders_that_cannot_be_flushed_are_said_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """F18: old CIFS and shared folders of VirtualBox work."""
    monkeypatch.setattr(folders, "told", set())
    monkeypatch.setattr(os, "fsync", fsync_failing(number, of=Path.is_dir))
    with structlog.testing.capture_logs() as logs:
        check_writing(root)
        temp, final = root / ".incoming" / "a.1.part", root / "audio" / "bb" / "cc" / "x.flac"
        temp.write_bytes(b"whole")
        assert publish(temp, final)
    assert [log["event"] for log in logs] == ["folders_not_flushed"]
    assert final.read_bytes() == b"whole"


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EMFILE])
def test_a_disk_that_fails_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", fsync_failing(number, of=Path.is_file))
    with pytest.raises(DependencyDown) as caught:
        check_writing(root)
    assert caught.value.dependency == ("space" if number == errno.ENOSPC else "media_write")
    assert left(root) == SONG


@pytest.mark.parametrize("written", [None, 0, 10])
def test_what_a_crash_has_left_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    """Whole or in part: the next check finds it under the same name."""
    with monkeypatch.context() as killed:
        killed.setattr(os, "unlink", refusing(errno.EIO))
        killed.setattr(Path, "unlink", refusing(errno.EIO))
        check_writing(root)
    rest = root / "audio" / CHECKED
    assert rest.exists()
    if written is not None:
        os.truncate(rest, written)
    check_writing(root)
    assert not rest.exists()
    assert [name for name in left(root) if name.startswith("audio")] == SONG


def test_a_strange_file_of_the_name_is_left_alone(root: Path) -> None:
    strange = root / "audio" / CHECKED
    strange.write_bytes(b"another program's")
    with pytest.raises(Unavailable, match="a file that is not ours has the name"):
        check_writing(root)
    assert strange.read_bytes() == b"another program's"


def test_audio_may_be_a_link_on_the_same_filesystem(root: Path, tmp_path: Path) -> None:
    (root / "audio").rename(tmp_path / "elsewhere")
    (root / "audio").symlink_to(tmp_path / "elsewhere")
    check_writing(root)
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*.*")] == ["song.flac"]
