"""UMASK decides who may read and write what the services make, whichever way it is made."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.fetcher_writer.__main__ import deliveries
from services.fetcher_writer.delivery.base import DeliveredFile, DeliveryName
from services.fetcher_writer.delivery.http_folder import HttpFolder
from shared.media.place import publish, stage
from shared.media.refused import move_aside
from shared.media.root import write_sentinel
from shared.settings import load
from tests.support.autoindex import Autoindex

SONG = b"a song" * 1_000
UMASKS = (0o022, 0o002, 0o027, 0o077)


@pytest.fixture(params=UMASKS, ids=lambda umask: f"{umask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of this process while the test runs, as the services set it at their start."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A media root that was there before."""
    path = tmp_path / "media"
    path.mkdir()
    path.chmod(0o711)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that another program made, with any rights."""
    path = tmp_path / "downloads" / "song.flac"
    path.parent.mkdir()
    path.write_bytes(SONG)
    path.chmod(0o640)
    return path


def temp_of(media: Path) -> Path:
    return media / ".incoming" / "item.1.part"


def final_of(media: Path) -> Path:
    return media / "audio" / "aa" / "bb" / "cc" / "aabbcc.flac"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def assert_modes(media: Path, umask: int) -> None:
    """All that was made below the media root has the umask's modes, and the root its own."""
    found = {path: mode(path) for path in media.rglob("*")}
    assert found == {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in found}
    assert mode(media) == 0o711


@pytest.mark.parametrize("how", ["hardlink", "reflink", "copy"])
def test_every_way_of_staging_gives_the_mode(
    how: str, umask: int, source: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linked, cloned or copied: the file, and the folders made for it, obey UMASK."""

    def away(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def clone(target_fd: int, _request: int, source_fd: int) -> int:
        if how == "copy":
            away()
        os.write(target_fd, os.pread(source_fd, len(SONG), 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    with monkeypatch.context() as staging:
        if how != "hardlink":
            staging.setattr(os, "link", away)
        assert stage(source, temp_of(media), mode=0o666 & ~umask) == how
    assert publish(temp_of(media), final_of(media))
    assert final_of(media).read_bytes() == SONG
    assert_modes(media, umask)


async def test_a_download_over_http_has_the_mode(umask: int, source: Path, media: Path) -> None:
    """What comes from a file server is made by us, as are the folders."""
    async with Autoindex(source.parents[1]) as server:
        files = HttpFolder(dest_root="/incoming", files_url=server.url)
        listed = DeliveredFile(name=source.name, size_bytes=len(SONG))
        await files.collect("/incoming/downloads", listed, temp_of(media))
        await files.close()
    assert publish(temp_of(media), final_of(media))
    assert_modes(media, umask)


@pytest.mark.parametrize(
    ("delivery", "how", "left"), [("incoming", "hardlink", 0o660), ("torrent", "copy", 0o644)]
)
async def test_the_fetcher_writer_hands_umask_to_its_deliveries(
    delivery: DeliveryName, how: str, left: int, source: Path, media: Path
) -> None:
    """A placed file is given the mode; a seeded one that more may read is copied and left alone."""
    source.chmod(0o644)
    environ = {
        "DATABASE_URL": "postgresql://host/db",
        "NATS_URL": "nats://host",
        "TORRENTINO_URL": "http://host",
        "TORRENTINO_DEST_ROOT": str(source.parents[1]),
        "TORRENTINO_DOWNLOADS_ROOT": str(source.parents[1]),
        "MEDIA_PATH": str(media),
        "UMASK": "007",
    }
    found = deliveries(load(["fetcher_writer"], environ))[delivery]
    listed = DeliveredFile(name=source.name, size_bytes=len(SONG))
    used = await found.collect(str(source.parent), listed, temp_of(media))
    assert used == how or (how, used) == ("copy", "reflink")
    assert mode(source) == left


def test_the_mark_and_what_is_refused_have_the_mode(umask: int, source: Path, media: Path) -> None:
    """The services' own folder is no exception; a broken file that we placed keeps its mode."""
    write_sentinel(media, "root-1")
    stage(source, temp_of(media), mode=0o666 & ~umask)
    publish(temp_of(media), final_of(media))
    move_aside(media, [final_of(media)])
    (moved,) = (media / ".incoming" / "refused").iterdir()
    assert moved.read_bytes() == SONG
    assert_modes(media, umask)


def test_folders_that_exist_keep_their_mode(umask: int, source: Path, media: Path) -> None:
    """Folders that were made for other rights stay so."""
    for folder in (final_of(media).parents[2], temp_of(media).parent):
        folder.mkdir(parents=True)
        folder.chmod(0o2770)
    stage(source, temp_of(media), mode=0o666 & ~umask)
    publish(temp_of(media), final_of(media))
    assert mode(final_of(media).parents[2]) == mode(temp_of(media).parent) == 0o2770
    assert mode(final_of(media).parent) & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize(
    ("wanted", "theirs", "linked"),
    [
        *((0o644, 0o644, True), (0o644, 0o664, True), (0o644, 0o640, False)),
        *((0o664, 0o644, True), (0o664, 0o664, True), (0o664, 0o666, False)),
        *((0o640, 0o640, True), (0o640, 0o660, True), (0o640, 0o644, False)),
        *((0o640, 0o600, False), (0o600, 0o600, True), (0o600, 0o644, False)),
        *((0o666, 0o644, True), (0o666, 0o666, False)),
    ],
)
def test_what_is_seeded_is_linked_only_for_the_same_readers(
    wanted: int, theirs: int, linked: bool, source: Path, media: Path
) -> None:
    """Its mode cannot be changed: where it lets in fewer or more than UMASK does, it is copied."""
    source.chmod(theirs)
    before = os.umask(0o666 & ~wanted)
    try:
        how = stage(source, temp_of(media), theirs=True, mode=wanted)
    finally:
        os.umask(before)
    assert (how == "hardlink") is linked
    assert mode(source) == theirs
    assert mode(temp_of(media)) == (theirs if linked else wanted)


@pytest.mark.parametrize("theirs", [True, False])
@pytest.mark.parametrize("wanted", [0o644, 0o664, 0o640, 0o600])
def test_another_users_file_is_linked_only_where_all_may_read(
    wanted: int, theirs: bool, source: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights of its owner and group would not be the rights of our files."""
    source.chmod(wanted)
    monkeypatch.setattr(os, "geteuid", lambda: source.stat().st_uid + 1)
    how = stage(source, temp_of(media), theirs=theirs, mode=wanted)
    assert (how == "hardlink") is bool(wanted & 0o004)
