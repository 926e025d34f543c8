"""What every delivery from the download folder promises: data are found by name, else by size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.fetcher_writer.delivery.base import DeliveredFile, Delivery
from services.fetcher_writer.delivery.download_folder import DownloadFolder
from services.fetcher_writer.delivery.http_downloads import HttpDownloads
from shared.errors import AttemptFailed, ErrorType
from tests.support.autoindex import Autoindex
from tests.support.nginx import nginx

ROOT = "/downloads"


@dataclass
class Place:
    """A delivery, and the folder that the torrent client saves to."""

    delivery: Delivery
    saved: Path
    temp: Path

    def put(self, name: str, content: bytes) -> None:
        path = self.saved / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(params=["folder", "http", "nginx"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path
) -> AsyncIterator[Place]:
    own = folder if request.param == "nginx" else tmp_path
    saved, temp = own / "saved", own / "media" / "item.1.part"
    saved.mkdir()
    temp.parent.mkdir()
    match request.param:
        case "folder":
            delivery = DownloadFolder(dest_root=ROOT, dest_mount=saved)
            yield Place(delivery=delivery, saved=saved, temp=temp)
        case "http":
            async with Autoindex(saved) as server:
                http = HttpDownloads(dest_root=ROOT, files_url=server.url)
                yield Place(delivery=http, saved=saved, temp=temp)
                await http.close()
        case _:
            async with nginx(saved) as real:
                http = HttpDownloads(dest_root=ROOT, files_url=real.url)
                yield Place(delivery=http, saved=saved, temp=temp)
                await http.close()


async def test_what_has_the_name_and_the_bytes_is_it(place: Place) -> None:
    place.put("Album/01.flac", b"one")
    place.put("Album/scans/cover.jpg", b"four")
    assert await place.delivery.locate(f"{ROOT}/Album", 7) == f"{ROOT}/Album"
    # Before the metadata a client may not have told the size.
    assert await place.delivery.locate(f"{ROOT}/Album", None) == f"{ROOT}/Album"


async def test_another_name_is_found_by_its_bytes(place: Place) -> None:
    """A magnet's name is the tracker's title; slashes and endings differ, the bytes do not."""
    place.put("2004 - Paper Lighthouse/CD1/01.flac", b"one")
    place.put("2004 - Paper Lighthouse/cover.jpg", b"four")
    place.put("Something else/01.flac", b"other")
    title = f"{ROOT}/Kestrel Union - Paper Lighthouse (2004) [FLAC]"
    assert await place.delivery.locate(title, 7) == f"{ROOT}/2004 - Paper Lighthouse"
    found = await place.delivery.files(f"{ROOT}/2004 - Paper Lighthouse")
    assert [file.name for file in found] == ["CD1/01.flac", "cover.jpg"]


async def test_of_several_with_these_bytes_the_nearest_name(place: Place) -> None:
    place.put("Aardvark/01.flac", b"seven77")
    place.put("Lighthouse/01.flac", b"seven77")
    title = f"{ROOT}/Kestrel Union - Paper Lighthouse"
    assert await place.delivery.locate(title, 7) == f"{ROOT}/Lighthouse"


async def test_a_folder_of_the_name_with_other_bytes_is_better_than_nothing(place: Place) -> None:
    """Two torrents may share a folder; what is in it the matching tells."""
    place.put("Album/01.flac", b"one")
    assert await place.delivery.locate(f"{ROOT}/Album", 7) == f"{ROOT}/Album"


async def test_a_torrent_of_one_file_has_no_folder(place: Place) -> None:
    place.put("song.flac", b"a song")
    path = await place.delivery.locate(f"{ROOT}/A Song (Single)", 6)
    assert path == f"{ROOT}/song.flac"
    files = await place.delivery.files(path)
    assert files == [DeliveredFile(name="song.flac", size_bytes=6)]
    await place.delivery.collect(path, files[0], place.temp)
    assert place.temp.read_bytes() == b"a song"


async def test_a_folder_may_hold_a_file_of_its_own_name(place: Place) -> None:
    place.put("song.flac/song.flac", b"a song")
    [file] = await place.delivery.files(f"{ROOT}/song.flac")
    await place.delivery.collect(f"{ROOT}/song.flac", file, place.temp)
    assert place.temp.read_bytes() == b"a song"


async def test_what_is_nowhere_names_both_sides(place: Place) -> None:
    place.put("Other/01.flac", b"other")
    with pytest.raises(AttemptFailed, match="nothing there has its bytes") as caught:
        await place.delivery.locate(f"{ROOT}/Album", 7)
    assert caught.value.error_type is ErrorType.STORAGE
    assert caught.value.evidence["path"] == f"{ROOT}/Album"
    assert caught.value.evidence["downloads_root"] == ROOT
    assert caught.value.evidence["here"]


async def test_a_folder_that_is_not_there_hints_at_the_mount(place: Place) -> None:
    """The client saves to a folder below the root that we do not see."""
    with pytest.raises(AttemptFailed, match="there is no such folder: is that the folder"):
        await place.delivery.locate(f"{ROOT}/music/Album", 7)


async def test_a_path_from_elsewhere_is_refused(place: Place) -> None:
    with pytest.raises(AttemptFailed, match="not below TORRENTINO_DOWNLOADS_ROOT"):
        await place.delivery.locate("/elsewhere/Album", 7)
