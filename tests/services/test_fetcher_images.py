"""The fetcher-writer and albums in one file: each track is cut by the sheet that is the file's."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pytest

from services.local.audio import make_tone
from shared.media.tools import find_tools
from tests.services.test_fetcher_albums import (
    ROOT,
    TITLES,
    Torrent,
    fetching,
    length_s,
    parts,
    sheet,
    wanted,
)
from tests.support.audio import make_audio, overwrite
from tests.support.conversion import Source, write
from tests.support.stages import BY_TEST, in_audio
from tests.support.world import World

LENGTHS = {place: length_s(place) for place in (1, 2, 3)}
WHOLE_S = sum(LENGTHS.values())


async def album(world: World, image: Path, cue: bytes | None) -> Torrent:
    """The torrent of an album in one file, with a sheet beside it; all tracks are wanted."""
    torrent = await wanted(world, list(LENGTHS))
    torrent.lay(f"{ROOT}/image.flac", image)
    if cue is not None:
        (torrent.downloads / ROOT / "disc.cue").write_bytes(cue)
    await torrent.is_there()
    return torrent


async def lengths_s(world: World) -> list[float]:
    rows = await world.rows("SELECT duration_ms FROM media_files ORDER BY track_id")
    return [row["duration_ms"] / 1000 for row in rows]


async def test_the_only_sheet_and_the_only_image_belong_together(still: World) -> None:
    """FILE names another file, the titles are Russian in KOI8-R, and data is behind the audio."""
    image = make_audio(still.folder / "image.flac", seconds=WHOLE_S)
    text = sheet(LENGTHS).replace("image.wav", "CDImage.wav").replace(TITLES[0], "Гавань")
    data = "\n  TRACK 04 MODE1/2352\n    INDEX 01 70:00:00"
    torrent = await album(still, image, (text + data).encode("koi8_r"))
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    assert in_audio(still) == [f"{track}.flac" for track in torrent.tracks]
    assert await lengths_s(still) == pytest.approx(list(LENGTHS.values()), abs=0.05)
    assert parts(still) == []


async def test_a_sheet_of_another_image_cuts_nothing(still: World) -> None:
    """The image is longer than the sheet's, and no name says that they belong together."""
    image = make_audio(still.folder / "image.flac", seconds=WHOLE_S + 3)
    await album(still, image, sheet(LENGTHS).replace("image.wav", "CDImage.wav").encode())
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    assert in_audio(still) == []
    assert {row["stage"] for row in await still.items()} == {"queued"}


async def test_an_administrator_may_take_a_part_of_a_longer_image(still: World) -> None:
    """Where a name says that they belong together: held with both lengths, and cut if approved."""
    image = make_audio(still.folder / "image.flac", seconds=WHOLE_S + 3)
    torrent = await album(still, image, sheet(LENGTHS).encode())
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
        assert in_audio(still) == []
        rows = await torrent.by_track()
        assert {row["stage"] for row in rows.values()} == {"needs_choice"}
        row = rows[torrent.tracks[1]]
        assert "the CUE sheet may be that of another file" in row["reason"]
        (candidate,) = row["error_evidence"]["candidates"]
        await still.execute(
            "UPDATE queue_items SET stage = 'ready', chosen_file = $2, actor = $3 WHERE id = $1",
            *(row["id"], candidate["file"], BY_TEST),
        )
        assert await by_hand.fetch() == 1
    assert in_audio(still) == [f"{torrent.tracks[1]}.flac"]
    assert await lengths_s(still) == pytest.approx([LENGTHS[2]], abs=0.05)


async def test_a_damaged_image_is_not_cut(still: World) -> None:
    """Its tracks would be cut where the decoder lost count."""
    write(Source("flac", seconds=WHOLE_S, noise=True), still.folder / "whole")
    image = overwrite(still.folder / "image", still.folder / "whole")
    await album(still, image, sheet(LENGTHS).encode())
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    assert in_audio(still) == []


async def test_a_sheet_in_a_tag_of_the_image(still: World) -> None:
    """The tag CUESHEET, where no sheet is beside the file."""
    image = still.folder / "image.flac"
    tags = {"CUESHEET": sheet(LENGTHS), "TITLE": "Tides"}
    make_tone(image, seconds=WHOLE_S, codec="flac", frequency=440, tools=find_tools(), tags=tags)
    torrent = await album(still, image, None)
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 3
    assert in_audio(still) == [f"{track}.flac" for track in torrent.tracks]
    assert await lengths_s(still) == pytest.approx(list(LENGTHS.values()), abs=0.05)


async def test_a_block_in_the_only_file_of_a_track_s_ticket(still: World) -> None:
    """A single file that holds the album: the track is cut out of it."""
    torrent = await wanted(still, [2], known=list(LENGTHS))
    image = still.folder / "image.flac"
    write(Source("flac", seconds=WHOLE_S, noise=True), image)
    image.write_bytes(with_block(image.read_bytes(), list(LENGTHS.values())))
    torrent.lay("image.flac", image)
    path = str(torrent.downloads / "image.flac")
    await torrent.is_there(kind="track", album_id=None, torrent_path=path)
    async with fetching(still) as by_hand:
        assert await by_hand.fetch() == 1
    assert in_audio(still) == [f"{torrent.tracks[0]}.flac"]
    assert await lengths_s(still) == pytest.approx([LENGTHS[2]], abs=0.05)


def with_block(flac: bytes, lengths: Sequence[float], *, rate_hz: int = 44_100) -> bytes:
    """The FLAC file with a CUESHEET block behind its STREAMINFO."""
    places = list(accumulate((round(each * rate_hz) for each in lengths), initial=0))
    tracks = b"".join(
        struct.pack(">QB12sB13sBQB3s", at, number, b"", 0, b"", 1, 0, 1, b"")
        for number, at in enumerate(places[:-1], start=1)
    )
    end = struct.pack(">QB12sB13sB", places[-1], 170, b"", 0, b"", 0)
    head = struct.pack(">128sQB258sB", b"", 88_200, 0x80, b"", len(lengths) + 1)
    content = head + tracks + end
    behind = 4 + 4 + 34
    return flac[:behind] + b"\x05" + len(content).to_bytes(3, "big") + content + flac[behind:]
