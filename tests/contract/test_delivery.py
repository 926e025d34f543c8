"""What every delivery promises: shared folder, file server, and the download folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.fetcher_writer.delivery import base as port
from services.fetcher_writer.delivery import http_folder as http_files_module
from services.fetcher_writer.delivery import shared_folder as shared_folder_module
from services.fetcher_writer.delivery.base import DeliveredFile, Delivery
from services.fetcher_writer.delivery.candidates import audio_candidates, check_placed
from services.fetcher_writer.delivery.download_folder import DownloadFolder
from services.fetcher_writer.delivery.http_folder import HttpFolder
from services.fetcher_writer.delivery.shared_folder import SharedFolder
from shared.errors import (
    AttemptFailed,
    DependencyDown,
    DownloadsError,
    ErrorType,
    Misconfigured,
    Unavailable,
)
from tests.support.autoindex import Autoindex, answer
from tests.support.disk import withheld
from tests.support.nginx import nginx

ROOT = "/media/incoming"
TICKET = f"{ROOT}/t1"
BIG = bytes(range(256)) * 4_096  # 1 MiB: several pieces
SONG = DeliveredFile(name="song.flac.converted", size_bytes=len(BIG))


class Sleeps(list[float]):
    async def __call__(self, delay_s: float) -> None:
        self.append(delay_s)


@dataclass
class Place:
    """A delivery, and the folder that Torrentino writes to."""

    delivery: Delivery
    incoming: Path
    temp: Path

    def put(self, name: str, content: bytes, *, ticket: str = "t1") -> None:
        path = self.incoming / ticket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass
class HttpPlace(Place):
    delivery: HttpFolder
    server: Autoindex
    sleeps: Sleeps = field(default_factory=Sleeps)


def folders(tmp_path: Path) -> tuple[Path, Path]:
    incoming, media = tmp_path / "incoming", tmp_path / "media"
    incoming.mkdir()
    media.mkdir()
    return incoming, media / ".incoming" / "item.1.part"


@pytest.fixture
def shared(tmp_path: Path) -> Place:
    incoming, temp = folders(tmp_path)
    delivery = SharedFolder(dest_root=ROOT, dest_mount=incoming)
    return Place(delivery=delivery, incoming=incoming, temp=temp)


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[HttpPlace]:
    incoming, temp = folders(tmp_path)
    sleeps = Sleeps()
    async with Autoindex(incoming) as server:
        delivery = HttpFolder(dest_root=ROOT, files_url=server.url, sleep=sleeps)
        yield HttpPlace(
            delivery=delivery, incoming=incoming, temp=temp, server=server, sleeps=sleeps
        )
        await delivery.close()


@pytest.fixture
async def real_nginx(folder: Path) -> AsyncIterator[Place]:
    incoming, temp = folders(folder)
    async with nginx(incoming) as server:
        delivery = HttpFolder(dest_root=ROOT, files_url=server.url, sleep=Sleeps())
        yield Place(delivery=delivery, incoming=incoming, temp=temp)
        await delivery.close()


@pytest.fixture
def torrents(tmp_path: Path) -> Place:
    incoming, temp = folders(tmp_path)
    delivery = DownloadFolder(dest_root=ROOT, dest_mount=incoming)
    return Place(delivery=delivery, incoming=incoming, temp=temp)


@pytest.fixture(params=["shared", "http", "real_nginx", "torrents"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


# --- the contract of all


async def test_files_are_listed_recursively_and_sorted(place: Place) -> None:
    """Names are relative to the ticket's folder, with every character a file name may have."""
    names = ["b.mp3", "a/ü ?#%41&+.flac", "a/deep/é\n'\".ogg", "C\\D.wav"]
    for size, name in enumerate(names, start=1):
        place.put(name, b"x" * size)
    files = await place.delivery.files(TICKET)
    expected = sorted((name, size) for size, name in enumerate(names, start=1))
    assert [(file.name, file.size_bytes) for file in files] == expected
    for file in files:
        await place.delivery.collect(TICKET, file, place.temp)
        assert place.temp.stat().st_size == file.size_bytes


async def test_what_is_no_file_is_left_out(place: Place) -> None:
    """Empty files are what a failed copy leaves."""
    place.put("song.mp3", b"audio")
    place.put("empty.converted", b"")
    (place.incoming / "t1" / "folder").mkdir()
    os.mkfifo(place.incoming / "t1" / "pipe.mp3")
    (place.incoming / "t1" / "nowhere.mp3").symlink_to("gone.mp3")
    (place.incoming / "t1" / "up").symlink_to(place.incoming)
    files = await place.delivery.files(TICKET)
    assert files == [DeliveredFile(name="song.mp3", size_bytes=5)]


async def test_a_link_to_a_file_is_not_collected(place: Place) -> None:
    """It may lead anywhere; that a file server lists it as what it leads to, helps it nothing."""
    place.put("song.mp3", b"audio")
    (place.incoming / "t1" / "link.mp3").symlink_to("song.mp3")
    listed = {file.name for file in await place.delivery.files(TICKET)}
    assert {"song.mp3"} <= listed <= {"song.mp3", "link.mp3"}
    link = DeliveredFile(name="link.mp3", size_bytes=5)
    # nginx does not tell a link from a file that it may not read, which an operator has to solve.
    with pytest.raises((AttemptFailed, Misconfigured)):
        await place.delivery.collect(TICKET, link, place.temp)
    assert not place.temp.exists()


async def test_a_folder_that_is_a_link_brings_nothing(place: Place) -> None:
    """What lies there is not the ticket's."""
    place.put("song.mp3", b"1", ticket="t2")
    (place.incoming / "t1").symlink_to("t2")
    with suppress(AttemptFailed):
        assert await place.delivery.files(TICKET) == []
    song = DeliveredFile(name="song.mp3", size_bytes=1)
    with pytest.raises(AttemptFailed):
        await place.delivery.collect(TICKET, song, place.temp)
    assert not place.temp.exists()


async def test_an_absent_folder_has_no_files(place: Place) -> None:
    """Torrentino may not have made it; whether that is an error, the ticket decides."""
    assert await place.delivery.files(f"{ROOT}/none/such") == []


async def test_other_tickets_are_not_seen(place: Place) -> None:
    """Each ticket has its own folder, and names that begin alike are different ones."""
    place.put("song.mp3", b"mine")
    place.put("other.mp3", b"theirs", ticket="t11")
    assert [file.name for file in await place.delivery.files(TICKET)] == ["song.mp3"]
    assert [file.name for file in await place.delivery.files(f"{ROOT}//t11/./")] == ["other.mp3"]


@pytest.mark.parametrize(
    "dest_path",
    [
        *("", "t1", ROOT, f"{ROOT}/", f"{ROOT}/.", f"{ROOT}/../x", f"{ROOT}/t1/../..", "/etc"),
        *(f"{ROOT}x/t1", f"{ROOT}/a\0b", f"{ROOT}/\udcff", "../incoming/t1"),
    ],
)
async def test_only_folders_below_the_root_are_touched(place: Place, dest_path: str) -> None:
    """Not even the root itself: removing it would remove every ticket's files."""
    file = DeliveredFile(name="x", size_bytes=1)
    for call in (
        place.delivery.files(dest_path),
        place.delivery.collect(dest_path, file, place.temp),
        place.delivery.remove(dest_path),
    ):
        with pytest.raises(AttemptFailed) as caught:
            await call
        assert caught.value.error_type is ErrorType.STORAGE


@pytest.mark.parametrize("name", ["../t2/x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a\0b"])
async def test_only_files_of_the_ticket_are_collected(place: Place, name: str) -> None:
    """Names come from outside."""
    place.put("x", b"1", ticket="t2")
    with pytest.raises(AttemptFailed, match="unusable name"):
        await place.delivery.collect(TICKET, DeliveredFile(name=name, size_bytes=1), place.temp)
    assert not place.temp.exists()


async def test_folders_are_followed_to_a_bounded_depth(place: Place) -> None:
    """Eight folders are more than any release has."""
    place.put("/".join(["d"] * port.MAX_DEPTH) + "/in.mp3", b"1")
    place.put("/".join(["d"] * (port.MAX_DEPTH + 1)) + "/out.mp3", b"1")
    files = await place.delivery.files(TICKET)
    assert [file.name.rpartition("/")[2] for file in files] == ["in.mp3"]


async def test_entries_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a hundred thousand files is not a song."""
    for module in (http_files_module, shared_folder_module):
        monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    for number in range(4):
        place.put(f"{number}", b"1")
    with pytest.raises(AttemptFailed, match="more than 3 entries"):
        await place.delivery.files(TICKET)


async def test_collect_brings_the_whole_file(place: Place) -> None:
    """And replaces what an earlier attempt has left there."""
    place.put(SONG.name, BIG)
    place.temp.parent.mkdir()
    place.temp.write_bytes(b"old")
    how = await place.delivery.collect(TICKET, SONG, place.temp)
    assert how in {"hardlink", "reflink", "copy", "http"}
    assert place.temp.read_bytes() == BIG


@pytest.mark.parametrize("size_bytes", [len(BIG) - 1, len(BIG) + 1])
async def test_a_file_of_another_size_than_listed_is_refused(place: Place, size_bytes: int) -> None:
    """It is still being written, or is not the file that was listed."""
    place.put(SONG.name, BIG)
    listed = DeliveredFile(name=SONG.name, size_bytes=size_bytes)
    with pytest.raises(AttemptFailed) as caught:
        await place.delivery.collect(TICKET, listed, place.temp)
    assert caught.value.error_type is ErrorType.STORAGE
    assert caught.value.evidence["file"] == SONG.name
    assert not place.temp.exists()


async def test_a_file_that_has_gone_is_refused(place: Place) -> None:
    """The attempt is over; asking again would not bring it back."""
    with pytest.raises(AttemptFailed, match="is gone"):
        await place.delivery.collect(TICKET, SONG, place.temp)
    assert not place.temp.exists()


async def test_removing_twice_is_fine(place: Place) -> None:
    """Either the folder is gone afterwards, or it says that this is not its business."""
    place.put("a/song.mp3", b"1")
    place.put("other.mp3", b"1", ticket="t2")
    for _ in range(2):
        removed = await place.delivery.remove(TICKET)
        assert (place.incoming / "t1").exists() != removed
    assert (place.incoming / "t2" / "other.mp3").exists()


async def test_check_passes_when_the_place_is_visible(place: Place) -> None:
    """An empty folder is fine: there may be no ticket yet."""
    await place.delivery.check()


async def test_a_place_that_is_not_there_is_told_apart_from_no_files(place: Place) -> None:
    """Else an unmounted disk would count as failed attempts of every item."""
    place.incoming.rmdir()
    for call in (place.delivery.check(), place.delivery.files(TICKET)):
        with pytest.raises(Misconfigured, match=r"TORRENTINO_(DEST|DOWNLOADS)_ROOT") as caught:
            await call
        assert caught.value.dependency == "incoming"


# --- the torrents' own folder only


async def test_a_torrent_may_be_one_file(torrents: Place) -> None:
    """Then that file is all there is, whatever lies beside it."""
    torrents.put("song.flac", BIG, ticket=".")
    torrents.put("other.flac", BIG, ticket=".")
    path = f"{ROOT}/song.flac"
    (file,) = await torrents.delivery.files(path)
    assert (file.name, file.size_bytes) == ("song.flac", len(BIG))
    await torrents.delivery.collect(path, file, torrents.temp)
    assert torrents.temp.read_bytes() == BIG
    gone = DeliveredFile(name="other.flac", size_bytes=len(BIG))
    with pytest.raises(AttemptFailed):
        await torrents.delivery.collect(path, gone, torrents.temp)


async def test_a_file_may_be_named_as_its_folder(torrents: Place) -> None:
    """A torrent's folder and the file in it: not a torrent of one file."""
    torrents.put("t1", BIG)
    (file,) = await torrents.delivery.files(TICKET)
    await torrents.delivery.collect(TICKET, file, torrents.temp)
    assert torrents.temp.read_bytes() == BIG


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        *((0o644, "hardlink"), (0o664, "hardlink"), (0o755, "hardlink")),
        *((0o600, "copy"), (0o640, "copy"), (0o666, "copy")),
    ],
)
async def test_what_is_seeded_is_never_changed(torrents: Place, mode: int, how: str) -> None:
    """Mode, times and bytes stay; what cannot be served as it is, is copied."""
    torrents.put("song.flac", BIG)
    original = torrents.incoming / "t1" / "song.flac"
    original.chmod(mode)
    before = original.stat()
    (file,) = await torrents.delivery.files(TICKET)
    used = await torrents.delivery.collect(TICKET, file, torrents.temp)
    assert used == how or (how, used) == ("copy", "reflink")
    assert not await torrents.delivery.remove(TICKET)
    after = original.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert original.read_bytes() == BIG
    assert torrents.temp.stat().st_mode & 0o444 == 0o444


async def test_errors_name_the_variables_of_the_folder(torrents: Place) -> None:
    """Not those of the incoming folder, which may be as it should."""
    with pytest.raises(AttemptFailed, match="TORRENTINO_DOWNLOADS_ROOT"):
        await torrents.delivery.files("/elsewhere/t1")
    torrents.incoming.rmdir()
    with pytest.raises(Misconfigured, match="TORRENTINO_DOWNLOADS_MOUNT="):
        await torrents.delivery.check()


# --- the shared folder only


async def test_links_on_the_way_are_not_followed(shared: Place, tmp_path: Path) -> None:
    """A program that can write into the folder must not make us read, or remove, something else."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_bytes(b"1")
    (shared.incoming / "t1").symlink_to(tmp_path / "secret")
    for call in (
        shared.delivery.files(TICKET),
        shared.delivery.collect(TICKET, DeliveredFile(name="x", size_bytes=1), shared.temp),
        shared.delivery.remove(f"{TICKET}/deeper"),
    ):
        with pytest.raises(AttemptFailed, match="link"):
            await call
    await shared.delivery.remove(TICKET)
    assert not (shared.incoming / "t1").is_symlink()
    assert (tmp_path / "secret" / "x").exists()


async def test_a_file_in_place_of_the_folder_is_an_item_problem(shared: Place) -> None:
    """One odd ticket must not stop the fetching of all others."""
    (shared.incoming / "t1").write_bytes(b"1")
    with pytest.raises(AttemptFailed, match="not a folder"):
        await shared.delivery.files(TICKET)


async def test_names_that_are_no_text_are_skipped(shared: Place) -> None:
    """They could not be stored as evidence, and Torrentino cannot have made them."""
    shared.put("song.mp3", b"1")
    with (shared.incoming / "t1" / os.fsdecode(b"\xff.mp3")).open("wb") as odd:
        odd.write(b"1")
    assert [file.name for file in await shared.delivery.files(TICKET)] == ["song.mp3"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, Misconfigured),
        (errno.ESTALE, DependencyDown),
        (errno.EIO, DependencyDown),
        (errno.ENOTCONN, DependencyDown),
    ],
)
async def test_a_sick_mount_uses_no_attempt(
    shared: Place, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Unavailable]
) -> None:
    """The message names the setting and the folder."""
    shared.put("song.mp3", b"1")

    def scandir(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", scandir)
    for call in (shared.delivery.check(), shared.delivery.files(TICKET)):
        with pytest.raises(expected, match="TORRENTINO_DEST_MOUNT=") as caught:
            await call
        assert isinstance(caught.value, Unavailable)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
async def test_an_error_of_one_file_names_it(shared: Place, number: int) -> None:
    """Every number that the system knows: it is an outage or unexplained, never a bug."""
    shared.put("song.mp3", b"1")
    path = shared.incoming / "t1" / "song.mp3"
    file = DeliveredFile(name="song.mp3", size_bytes=1)
    with withheld({path: number}), pytest.raises(DownloadsError) as caught:
        await shared.delivery.collect(TICKET, file, shared.temp)
    assert isinstance(caught.value, Unavailable | AttemptFailed)
    if isinstance(caught.value, Unavailable):
        assert (caught.value.dependency, caught.value.path) in {
            ("incoming", str(path)),
            ("space", str(path)),
        }


# --- the file server only


async def test_a_dropped_download_is_resumed(http: HttpPlace) -> None:
    """From where it broke, and only if the file is still the same."""
    http.put(SONG.name, BIG)
    http.server.cuts = [300_000, 10, 400_000]
    assert await http.delivery.collect(TICKET, SONG, http.temp) == "http"
    assert http.temp.read_bytes() == BIG
    ranges = [headers.get("range") for _, headers in http.server.requests]
    assert ranges == [None, "bytes=300000-", "bytes=300010-", "bytes=700010-"]
    assert {h.get("if-range") for _, h in http.server.requests[1:]} == {'"v1"'}


async def test_progress_keeps_a_download_alive(http: HttpPlace) -> None:
    """Ten cuts are fine as long as each try brings something."""
    http.put(SONG.name, BIG)
    http.server.cuts = [100_000] * 10
    await http.delivery.collect(TICKET, SONG, http.temp)
    assert http.temp.read_bytes() == BIG


async def test_five_fruitless_tries_are_enough(http: HttpPlace) -> None:
    """The server is down, and nothing is left behind."""
    http.put(SONG.name, BIG)
    http.server.cuts = [100_000] + [0] * 20
    with pytest.raises(DependencyDown):
        await http.delivery.collect(TICKET, SONG, http.temp)
    assert len(http.server.requests) == 6
    assert len(http.sleeps) == 5
    assert not http.temp.exists()


@pytest.mark.parametrize(("ranges", "validators"), [(False, True), (True, False)])
async def test_without_ranges_or_validators_it_starts_over(
    http: HttpPlace, *, ranges: bool, validators: bool
) -> None:
    """Two halves of what may be two files are never put together."""
    http.put(SONG.name, BIG)
    http.server.ranges, http.server.validators = ranges, validators
    http.server.cuts = [600_000, 700_000]
    await http.delivery.collect(TICKET, SONG, http.temp)
    assert http.temp.read_bytes() == BIG


@pytest.mark.parametrize("content", [BIG[::-1], BIG + b"x", BIG[:1000]])
async def test_a_file_that_changes_under_way_is_refused(
    http: HttpPlace, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Whether or not its size gives it away."""
    http.put(SONG.name, BIG)
    http.server.cuts = [500_000]

    async def change(_: float) -> None:
        http.put(SONG.name, content)
        http.server.version = 2

    delivery = HttpFolder(dest_root=ROOT, files_url=http.server.url, sleep=change)
    with pytest.raises(AttemptFailed) as caught:
        await delivery.collect(TICKET, SONG, http.temp)
    await delivery.close()
    assert caught.value.error_type is ErrorType.STORAGE
    assert not http.temp.exists()


async def test_a_passing_error_is_tried_again(http: HttpPlace) -> None:
    """A gateway that restarts costs a moment, not the attempt."""
    http.put(SONG.name, BIG)
    http.server.canned = [answer(502, b"", []), answer(503, b"", [])]
    await http.delivery.collect(TICKET, SONG, http.temp)
    assert http.temp.read_bytes() == BIG


async def test_a_file_beyond_the_limit_is_not_begun(http: HttpPlace) -> None:
    """The listing tells the size."""
    delivery = HttpFolder(dest_root=ROOT, files_url=http.server.url, max_bytes=1_000)
    with pytest.raises(AttemptFailed, match="larger than 1000 bytes"):
        await delivery.collect(TICKET, SONG, http.temp)
    await delivery.close()
    assert http.server.requests == []


async def test_a_full_disk_holds(http: HttpPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the item, and the partial file gives its space back."""
    http.put(SONG.name, BIG)

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DependencyDown, match="disk is full") as caught:
        await http.delivery.collect(TICKET, SONG, http.temp)
    assert caught.value.dependency == "space"
    assert not http.temp.exists()


async def test_a_media_root_that_is_away_is_not_made(http: HttpPlace) -> None:
    """Its disk is not mounted; writing below would fill the wrong one."""
    http.put(SONG.name, BIG)
    http.temp.parent.parent.rmdir()
    with pytest.raises(DownloadsError):
        await http.delivery.collect(TICKET, SONG, http.temp)
    assert not http.temp.parent.parent.exists()


HTML_PAGE = answer(200, b"<html><body>Index of /files/", ["Content-Type: text/html"])
JSON_TYPE = ["Content-Type: application/json"]


@pytest.mark.parametrize(
    ("canned", "expected", "says"),
    [
        (HTML_PAGE, Misconfigured, "autoindex_format json"),
        (answer(200, b"", JSON_TYPE), Misconfigured, "autoindex_format json"),
        (answer(200, b'{"error": 1}', JSON_TYPE), Misconfigured, "autoindex_format json"),
        (answer(401, b"", []), Misconfigured, "log-in"),
        (answer(403, b"", []), Misconfigured, "TORRENTINO_FILES_URL answers 403"),
        (answer(302, b"", ["Location: /login"]), Misconfigured, "redirect"),
        (answer(404, b"", []), Misconfigured, "TORRENTINO_DEST_ROOT=/media/incoming"),
        (answer(502, b"", []), DependencyDown, "502"),
        (b"", DependencyDown, "no answer"),
    ],
)
async def test_a_wrong_server_is_explained(
    http: HttpPlace, canned: bytes, expected: type[Unavailable], says: str
) -> None:
    """Each answer names the setting to check."""
    http.server.canned = [canned]
    with pytest.raises(expected, match=says):
        await http.delivery.check()
    http.server.canned = [canned] * 2
    with pytest.raises(expected, match=says):
        await http.delivery.files(TICKET)


async def test_a_server_that_is_down_holds(http: HttpPlace, unused_tcp_port: int) -> None:
    """No attempt is used."""
    delivery = HttpFolder(
        dest_root=ROOT, files_url=f"http://127.0.0.1:{unused_tcp_port}", sleep=Sleeps()
    )
    for call in (
        delivery.check(),
        delivery.files(TICKET),
        delivery.collect(TICKET, SONG, http.temp),
    ):
        with pytest.raises(DependencyDown):
            await call
    await delivery.close()


@pytest.mark.parametrize("files_url", ["", "host/files", "file:///media", "http://"])
def test_an_unusable_url_names_its_variable(files_url: str) -> None:
    """The start of the service stops with it."""
    with pytest.raises(Misconfigured, match="TORRENTINO_FILES_URL"):
        HttpFolder(dest_root=ROOT, files_url=files_url)


async def test_hostile_names_in_a_listing_are_skipped(http: HttpPlace) -> None:
    """What a server lists is not trusted to be a name."""
    names = ["..", ".", "", "a/b", "/etc/passwd", "a\0b", 7, None, "bad\ufffd", "good.mp3"]
    entries = [{"name": name, "type": "file", "size": 5} for name in names]
    entries += [{"type": "file", "size": 5}, {"name": "..", "type": "directory"}]
    listing = answer(200, json.dumps(entries).encode(), JSON_TYPE)
    http.server.canned = [listing] * 2
    assert [file.name for file in await http.delivery.files(TICKET)] == ["good.mp3"]


# --- what is made of the listing


def files_of(*sizes: int) -> list[DeliveredFile]:
    return [DeliveredFile(name=f"{n}.mp3", size_bytes=size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "files_placed", "final_size_bytes"),
    [((5,), 1, 5), ((5, 6), 2, 11), ((5,), None, None), ((5,), None, 5), ((5,), 1, None)],
)
def test_what_was_placed_is_there(
    sizes: tuple[int, ...], files_placed: int | None, final_size_bytes: int | None
) -> None:
    """What Torrentino does not say is not compared."""
    check_placed(files_of(*sizes), files_placed=files_placed, final_size_bytes=final_size_bytes)


@pytest.mark.parametrize(
    ("sizes", "files_placed", "final_size_bytes"),
    [((), 0, 0), ((), 1, 5), ((), None, None), ((5,), 2, 5), ((5, 6), 1, 11), ((5,), 1, 6)],
)
def test_what_was_placed_is_not_there(
    sizes: tuple[int, ...], files_placed: int | None, final_size_bytes: int | None
) -> None:
    """Both sides are kept as evidence; no files at all are never right."""
    with pytest.raises(AttemptFailed) as caught:
        check_placed(files_of(*sizes), files_placed=files_placed, final_size_bytes=final_size_bytes)
    assert caught.value.error_type is ErrorType.STORAGE
    assert caught.value.evidence["found_count"] == len(sizes)
    assert caught.value.evidence["files_placed"] == files_placed
    json.dumps(caught.value.evidence)


def test_audio_comes_first_and_the_rest_is_dropped() -> None:
    """Under Torrentino's suffix or not; an unknown ending may be audio, after the known ones."""
    sizes = {
        "cover.jpg": 9,
        "Scans/back.PNG.converted": 9,
        "info.nfo": 9,
        "album.cue": 9,
        "list.m3u": 9,
        "rip.log.converted": 9,
        "booklet.pdf": 9,
        "CD1/._small.mp3": 9,
        ".unwanted/song.mp3": 9,
        "half.flac.!qB": 9,
        "half.parts": 9,
        "...And.mp3": 2,
        "no ending": 8,
        "Artist - Song.converted": 7,
        "small.mp3": 1,
        "big.FLAC.converted": 5,
        "also big.ogg": 5,
    }
    files = [DeliveredFile(name=name, size_bytes=size) for name, size in sizes.items()]
    assert [file.name for file in audio_candidates(files)] == [
        "also big.ogg",
        "big.FLAC.converted",
        "...And.mp3",
        "small.mp3",
        "no ending",
        "Artist - Song.converted",
    ]
