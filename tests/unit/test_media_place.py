"""Placing files: whole or absent, never over another file, never through a link."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from shared.errors import AttemptFailed, DependencyDown, ErrorType
from shared.media import place
from shared.media.place import free_mb, publish, stage, storage_error
from shared.media.root import check_root, read_sentinel, write_sentinel
from shared.media.sweep import sweep_temp

SONG = os.urandom(3_000_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "downloads" / "song.flac"
    path.parent.mkdir()
    path.write_bytes(SONG)
    path.chmod(0o644)
    return path


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    return tmp_path / "media" / ".incoming" / "item.1.part"


@pytest.fixture
def final(tmp_path: Path) -> Path:
    return tmp_path / "media" / "audio" / "aa" / "bb" / "cc" / "aabbcc.flac"


def failing(number: int) -> Callable[..., NoReturn]:
    def fail(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(number, os.strerror(number), str(args[0]) if args else None)

    return fail


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another filesystem, or one without hard links."""
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))


def test_stage_links_where_it_can(source: Path, temp: Path) -> None:
    """On one filesystem no byte is copied."""
    assert stage(source, temp) == "hardlink"
    assert temp.stat().st_ino == source.stat().st_ino


@pytest.mark.usefixtures("no_links")
def test_stage_copies_across_filesystems(source: Path, temp: Path) -> None:
    """Another filesystem gets a readable copy of its own."""
    source.chmod(0o600)
    assert stage(source, temp) in ("copy", "reflink")
    assert temp.read_bytes() == SONG
    assert temp.stat().st_mode & 0o777 == 0o644
    assert temp.stat().st_ino != source.stat().st_ino


@pytest.mark.usefixtures("no_links")
def test_stage_reflinks_where_it_can(
    source: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filesystem that shares blocks is asked before bytes are moved."""

    def clone(target_fd: int, request: int, source_fd: int) -> int:
        assert request == 0x40049409
        os.write(target_fd, os.pread(source_fd, len(SONG), 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert stage(source, temp) == "reflink"
    assert temp.read_bytes() == SONG


def test_staged_link_is_readable(source: Path, temp: Path) -> None:
    """The player runs as another user than the downloader."""
    source.chmod(0o600)
    assert stage(source, temp) == "hardlink"
    assert temp.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("mode", "how"), [(0o600, "copy"), (0o444, "hardlink")])
def test_mode_of_another_users_file(
    mode: int, how: str, source: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we may not make readable is copied, unless all may read it already."""
    source.chmod(mode)
    change = os.fchmod

    def only_ours(fd: int, new_mode: int) -> None:
        if os.path.samestat(os.fstat(fd), source.stat()):
            failing(errno.EPERM)()
        change(fd, new_mode)

    monkeypatch.setattr(os, "fchmod", only_ours)
    assert stage(source, temp) in (how, "reflink" if how == "copy" else how)
    assert temp.stat().st_mode & 0o444 == 0o444


def test_stage_replaces_an_old_temp(source: Path, temp: Path) -> None:
    """What a killed attempt left is no obstacle."""
    temp.parent.mkdir(parents=True)
    temp.write_bytes(b"half")
    stage(source, temp)
    assert temp.read_bytes() == SONG


def test_stage_refuses_a_link(source: Path, temp: Path) -> None:
    """A download that is a link could be any file of this machine."""
    link = source.with_name("link.flac")
    link.symlink_to(source)
    with pytest.raises(AttemptFailed) as caught:
        stage(link, temp)
    assert caught.value.error_type is ErrorType.STORAGE
    assert not os.path.lexists(temp)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_stage_refuses_what_is_no_file(
    make: Callable[[Path], None], tmp_path: Path, temp: Path
) -> None:
    """A named pipe or a folder is refused without waiting for it."""
    make(tmp_path / "odd")
    with pytest.raises(AttemptFailed, match="no regular file"):
        stage(tmp_path / "odd", temp)
    assert not temp.exists()


def test_stage_notices_a_swapped_name(
    source: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was checked is the file that is taken."""
    other = source.with_name("other")
    other.write_bytes(b"other")
    link = os.link
    monkeypatch.setattr(os, "link", lambda _, target, **rest: link(other, target, **rest))
    stage(source, temp)
    assert temp.read_bytes() == SONG


@pytest.mark.usefixtures("no_links")
def test_full_disk_leaves_no_temp(
    source: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up holds the work, and keeps nothing half-written."""
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    with pytest.raises(DependencyDown, match="free some space") as caught:
        stage(source, temp)
    assert caught.value.dependency == "space"
    assert not temp.exists()


def test_missing_source(tmp_path: Path, temp: Path) -> None:
    """A download that vanished is a failed attempt."""
    with pytest.raises(AttemptFailed, match="No such file"):
        stage(tmp_path / "gone", temp)


def test_publish(source: Path, temp: Path, final: Path) -> None:
    """The final name appears and the temporary one goes."""
    stage(source, temp)
    assert publish(temp, final)
    assert final.read_bytes() == SONG
    assert not temp.exists()


@pytest.mark.parametrize("links", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, None])
def test_publish_never_overwrites(
    links: int | None, source: Path, temp: Path, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is already there stays, with or without hard links."""
    stage(source, temp)
    final.parent.mkdir(parents=True)
    final.write_bytes(b"first")
    if links is not None:
        monkeypatch.setattr(os, "link", failing(links))
    assert not publish(temp, final)
    assert final.read_bytes() == b"first"
    assert temp.read_bytes() == SONG


@pytest.mark.parametrize("renameat2", [True, False])
def test_publish_without_hard_links(
    renameat2: bool, source: Path, temp: Path, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network filesystems are served by a rename."""
    stage(source, temp)
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    if not renameat2:
        monkeypatch.setattr(place, "renameat2", lambda *_: errno.ENOSYS)
    assert publish(temp, final)
    assert final.read_bytes() == SONG
    assert not temp.exists()


def test_last_resort_does_not_overwrite(
    source: Path, temp: Path, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without links and without renameat2 the name is still checked first."""
    stage(source, temp)
    final.parent.mkdir(parents=True)
    final.write_bytes(b"first")
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(place, "renameat2", lambda *_: errno.EINVAL)
    assert not publish(temp, final)
    assert final.read_bytes() == b"first"


def test_publish_replaces_on_request(source: Path, temp: Path, final: Path) -> None:
    """A repair puts the new file in place of the broken one."""
    stage(source, temp)
    final.parent.mkdir(parents=True)
    final.write_bytes(b"broken")
    assert publish(temp, final, replace=True)
    assert final.read_bytes() == SONG
    assert not temp.exists()


@pytest.mark.parametrize("replace", [True, False])
def test_publish_completes_an_interrupted_one(
    replace: bool, source: Path, temp: Path, final: Path
) -> None:
    """A crash between the link and the removal of the temporary name is healed."""
    stage(source, temp)
    final.parent.mkdir(parents=True)
    os.link(temp, final)
    assert publish(temp, final, replace=replace)
    assert final.read_bytes() == SONG
    assert not temp.exists()


def test_publish_syncs_file_and_new_folders(
    source: Path, temp: Path, final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the name, its folders and the bytes are there."""
    stage(source, temp)
    synced: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    publish(temp, final)
    new_parents = [str(p) for p in reversed(final.parents) if p.is_relative_to(temp.parents[1])]
    assert synced == [str(temp), *new_parents]


@pytest.mark.usefixtures("no_links")
def test_observers_see_all_or_nothing(source: Path, tmp_path: Path) -> None:
    """A reader that opens the final name at any moment reads the whole song."""
    final = tmp_path / "media" / "audio" / "song.flac"
    seen: set[bytes] = set()
    done = threading.Event()

    def observe() -> None:
        while not done.is_set():
            if final.exists():
                seen.add(final.read_bytes())

    thread = threading.Thread(target=observe)
    thread.start()
    (tmp_path / "media").mkdir()
    for number in range(20):
        temp = tmp_path / "media" / ".incoming" / f"{number}.part"
        stage(source, temp)
        assert publish(temp, final, replace=True)
    done.set()
    thread.join()
    assert seen <= {SONG}


def test_many_publishers_one_winner(source: Path, tmp_path: Path, final: Path) -> None:
    """Of workers that place the same track at once exactly one does it."""
    temps = [tmp_path / "media" / ".incoming" / f"{n}.part" for n in range(8)]
    for temp in temps:
        temp.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(temp.name.encode())
    won: list[Path] = []
    start = threading.Barrier(len(temps))

    def race(temp: Path) -> None:
        start.wait()
        if publish(temp, final):
            won.append(temp)

    threads = [threading.Thread(target=race, args=(temp,)) for temp in temps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [final.read_bytes()] == [path.name.encode() for path in won]


def test_sweep_takes_only_old_parts_without_a_claim(tmp_path: Path) -> None:
    """Running attempts, young files and other names stay."""
    incoming = tmp_path / ".incoming"
    (incoming / "folder.part").mkdir(parents=True)
    for name in ("a.1.part", "b.2.part", ".media-root", "c.txt"):
        (incoming / name).write_bytes(b"x")
    now_s = (incoming / "c.txt").stat().st_mtime
    # An old modification time alone proves nothing: a hard link inherits it.
    os.utime(incoming / "a.1.part", (0, 0))

    def keep(name: str) -> bool:
        return name == "b.2.part"

    assert sweep_temp(tmp_path, older_than_s=60, keep=keep, now_s=now_s + 30) == []
    assert sweep_temp(tmp_path, older_than_s=60, keep=keep, now_s=now_s + 90) == ["a.1.part"]
    left = {path.name for path in incoming.iterdir()}
    assert left == {"folder.part", "b.2.part", ".media-root", "c.txt"}
    assert sweep_temp(tmp_path / "none", older_than_s=0, keep=keep) == []


def test_free_mb(tmp_path: Path) -> None:
    """Counted in MiB, and a missing folder is one of our errors."""
    assert 0 < free_mb(tmp_path) <= shutil.disk_usage(tmp_path).total // 2**20
    with pytest.raises(AttemptFailed):
        free_mb(tmp_path / "none")


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE],
)
def test_disk_errors_hold(number: int) -> None:
    """What an operator has to repair uses no attempt; the error says where and what."""
    error = storage_error(OSError(number, "x", "/media/a"), "placing")
    assert isinstance(error, DependencyDown)
    assert error.dependency == ("space" if number in (errno.ENOSPC, errno.EDQUOT) else "media")
    assert "placing (/media/a): " in error.detail


def test_other_errors_count() -> None:
    """The rest is a failed attempt."""
    error = storage_error(OSError(errno.ENAMETOOLONG, "too long"), "placing")
    assert isinstance(error, AttemptFailed)
    assert error.error_type is ErrorType.STORAGE


def test_root_with_its_mark(tmp_path: Path) -> None:
    """The root that was marked is known again, and the mark can be renewed."""
    assert read_sentinel(tmp_path) is None
    check_root(tmp_path, None)
    write_sentinel(tmp_path, "one")
    write_sentinel(tmp_path, "root-1")
    assert read_sentinel(tmp_path) == "root-1"
    check_root(tmp_path, "root-1")
    assert [path.name for path in (tmp_path / ".incoming").iterdir()] == [".media-root"]


def test_root_that_is_not_mounted(tmp_path: Path) -> None:
    """An empty folder where a marked root was, or nothing at all, holds the work."""
    with pytest.raises(DependencyDown, match="Mount it"):
        check_root(tmp_path, "root-1")
    with pytest.raises(DependencyDown, match="MEDIA_PATH"):
        check_root(tmp_path / "none", None)
    with pytest.raises(DependencyDown, match="MEDIA_PATH"):
        write_sentinel(tmp_path / "none", "root-1")
    assert not (tmp_path / "none").exists()


def test_another_root(tmp_path: Path) -> None:
    """A disk of another installation is not written to."""
    write_sentinel(tmp_path, "theirs")
    with pytest.raises(DependencyDown, match="another media root"):
        check_root(tmp_path, "ours")
