"""The fetcher-writer and several files of one name: copies, other recordings, lost endings."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from shared.media.tools import find_tools
from tests.services.test_fetcher_albums import ROOT, TITLES, fetching, length_s, wanted
from tests.support.stages import assert_lawful, one
from tests.support.world import World

# A chord under beats, and a voice over it for half of the time.
_BACKING = "0.2*(sin(2*PI*220*t)+sin(2*PI*277*t))*(0.3+gt(mod(t,0.5),0.35))"
_VOICE = "0.3*gt(mod(t,1.2),0.6)*(sin(2*PI*330*t)+0.5*sin(2*PI*990*t))"


def made(path: Path, sound: str, seconds: float, *, channels: int = 2) -> Path:
    """A file of this sound, in the format that its ending names."""
    source = f"aevalsrc='{sound}':d={seconds}:s=44100"
    subprocess.run(
        [
            *(find_tools().ffmpeg, "-nostdin", "-y", "-v", "error", "-f", "lavfi", "-i", source),
            *("-ac", str(channels), str(path)),
        ],
        check=True,
    )
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for name, sound, channels in (
        *(("song.flac", f"{_BACKING}+{_VOICE}", 2), ("song.mp3", f"{_BACKING}+{_VOICE}", 2)),
        *(("instrumental.flac", _BACKING, 2), ("surround.flac", f"{_BACKING}+{_VOICE}", 6)),
    ):
        made(folder / name, sound, length_s(1), channels=channels)
    return folder


async def test_copies_are_told_from_other_recordings_by_their_audio(
    still: World, song: Path
) -> None:
    """Folders that say nothing: a copy in another format is one, the backing track is not."""
    torrent = await wanted(still, [1])
    name = f"01 - {TITLES[0]}"
    torrent.lay(f"{ROOT}/Walkman/{name}.mp3", song / "song.mp3")
    other = torrent.lay(f"{ROOT}/Zuhause/{name}.flac", song / "instrumental.flac")
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
        item = await one(still)
        assert item["stage"] == "needs_choice"
        assert "several files are called so" in item["reason"]
        assert len(item["error_evidence"]["candidates"]) == 2
        other.unlink()
        torrent.lay(f"{ROOT}/Zuhause/{name}.flac", song / "song.flac")
        await torrent.ready(torrent.tracks)
        await by_hand.fetch()
    (placed,) = still.files().values()
    assert placed.read_bytes() == (song / "song.flac").read_bytes()
    await assert_lawful(still)


async def test_stereo_is_taken_before_surround(still: World, song: Path) -> None:
    """What was measured of the files counts, where their names and folders say nothing."""
    torrent = await wanted(still, [1])
    name = f"01 - {TITLES[0]}"
    torrent.lay(f"{ROOT}/a/{name}.flac", song / "surround.flac")
    torrent.lay(f"{ROOT}/b/{name}.mp3", song / "song.mp3")
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    (placed,) = still.files().values()
    assert placed.read_bytes() == (song / "song.mp3").read_bytes()


async def test_a_file_that_lost_its_ending_is_read(still: World, song: Path) -> None:
    """Its content says that it is audio; what is none is left out."""
    torrent = await wanted(still, [1], known=[1, 2])
    torrent.lay(f"{ROOT}/01 - {TITLES[0]}", song / "song.flac")
    torrent.lay(f"{ROOT}/03 - Another.flac", song / "instrumental.flac")
    (torrent.downloads / ROOT / "README").write_bytes(b"greetings" * 900)
    await torrent.is_there()
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    (placed,) = still.files().values()
    assert placed.read_bytes() == (song / "song.flac").read_bytes()
    assert placed.suffix == ".flac"


@pytest.mark.parametrize("name", ["{} (Instrumental).flac", "{}.flac"])
async def test_the_only_file_of_a_tracks_ticket_is_read_by_its_name(
    still: World, song: Path, name: str
) -> None:
    """Its length is the song's, so what its name says of the recording counts."""
    torrent = await wanted(still, [1], known=[1, 2])
    torrent.lay(f"{ROOT}/{name.format(TITLES[0])}", song / "song.flac")
    await torrent.is_there(kind="track")
    async with fetching(still) as by_hand:
        await by_hand.fetch()
    item = await one(still)
    assert item["stage"] == ("needs_choice" if "Instrumental" in name else "completed")
