"""Everything that must never be placed, delivered by a real Torrentino's stand-in."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import ffmpeg
import pytest

from shared.media.tools import find_tools
from shared.media.write_check import CHECKED
from tests.support.audio import cut, make_audio, overwrite
from tests.support.stages import assert_lawful, in_audio, queue
from tests.support.world import World, eventually

SECONDS = 4.0
EMPTY = b""


def broken_files(folder: Path) -> dict[str, tuple[Path, set[str]]]:
    """Each way to be broken, with the rules that may refuse it."""
    folder.mkdir()
    flac = make_audio(folder / "whole.flac", seconds=SECONDS)
    mp3 = make_audio(folder / "whole.mp3", seconds=SECONDS, codec="mp3")
    opus = make_audio(folder / "whole.opus", seconds=SECONDS, codec="opus")
    m4a = make_audio(folder / "whole.m4a", seconds=SECONDS, codec="aac")
    long = make_audio(folder / "long.flac", seconds=SECONDS + 10)
    damage = {"decode_errors", "truncated", "wrong_length"}
    return {
        "truncated mp3": (cut(folder / "cut.mp3", mp3), {"truncated"}),
        "truncated flac": (cut(folder / "cut.flac", flac), damage),
        "truncated opus": (cut(folder / "cut.opus", opus, keep=0.5), damage | {"too_small"}),
        "truncated m4a": (cut(folder / "cut.m4a", m4a), {"not_audio", *damage}),
        "corrupt mp3": (overwrite(folder / "bad.mp3", mp3), damage),
        "corrupt flac": (overwrite(folder / "bad.flac", flac), damage),
        "no bytes": (_written(folder / "none.mp3", EMPTY), {"too_small"}),
        "zero bytes": (_written(folder / "zeros.mp3", bytes(3_000_000)), set()),
        "a video": (_video(folder / "film.mp4"), set()),
        "another song": (long, {"wrong_length"}),
        "a page": (_written(folder / "page.ogg", b"<html>Not found</html>" * 2_000), set()),
        "a text": (_written(folder / "readme.txt", b"read me" * 9_000), {"not_audio"}),
        "a picture": (_written(folder / "cover.jpg", b"\xff\xd8" + bytes(50_000)), {"not_audio"}),
    }


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _video(path: Path) -> Path:
    sound = ffmpeg.input(f"sine=duration={SECONDS}", f="lavfi")
    picture = ffmpeg.input(f"testsrc=duration={SECONDS}:size=128x96:rate=10", f="lavfi")
    output = ffmpeg.output(picture, sound, str(path), v="error", **{"c:a": "aac", "c:v": "mpeg4"})
    ffmpeg.run(output, cmd=find_tools().ffmpeg, overwrite_output=True)
    return path


class Observer:
    """A reader that looks at audio/ all the time and copies whatever it finds, at once."""

    def __init__(self, media: Path, copies: Path) -> None:
        self._audio = media / "audio"
        self._copies = copies
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: dict[Path, str] = {}
        self.looks = 0

    def __enter__(self) -> Self:
        self._copies.mkdir()
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.001):
            self.looks += 1
            for path in self._audio.rglob("*"):
                # The file of a check that the disk can be written to is no track's.
                if path.name != CHECKED and path.is_file() and path not in self.seen:
                    copy = shutil.copy(path, self._copies / path.name)
                    self.seen[path] = hashlib.sha256(Path(copy).read_bytes()).hexdigest()


async def test_nothing_broken_is_ever_placed(world: World) -> None:
    """L-16, L-37, L-54: refused with the evidence; a new ticket brings the whole file."""
    broken = broken_files(world.folder / "broken")
    tracks = world.add_album(1, len(broken), seconds=SECONDS)
    for track, (path, _) in zip(tracks, broken.values(), strict=True):
        world.faults.substitute[f"song {int(track[1:])}"] = [path]
    await queue(world, tracks, seconds=SECONDS)
    with Observer(world.media, world.folder / "observed") as observer:
        running = await world.run(
            "ticketer",
            "poller",
            "fetcher_writer",
            RETRY_INITIAL_S="3600",
            # Half an Ogg is a whole Ogg but for its length.
            DURATION_TOLERANCE_S="1",
        )
        await eventually(lambda: _not_refused(world), lambda names: not names)
        items = await world.items()
        for item, (name, (path, rules)) in zip(items, broken.items(), strict=True):
            # Zeros are what Torrentino places too early: not the torrent's fault.
            wanted = "storage" if name == "zero bytes" else "corruption"
            assert item["error_type"] == wanted, (name, item["error_message"])
            evidence = item["error_evidence"]
            assert evidence["rule"], name
            assert not rules or evidence["rule"] in rules, (name, evidence)
            assert item["retry_count"] == 1
            assert path.stat().st_size == 0 or path.name.split(".")[-1] in str(evidence), name
        assert in_audio(world) == []
        assert list((world.media / ".incoming").glob("*.part")) == []
        first = {item["torrentino_ticket_id"] for item in items}
        await world.execute("UPDATE queue_items SET due_at = now()")
        await running.app.bus.wake("ticket")
        items = await world.until_ended(len(broken))
    assert {item["status"] for item in items} == {"COMPLETED"}
    assert first.isdisjoint(item["torrentino_ticket_id"] for item in items)
    assert in_audio(world) == [f"{track}.flac" for track in tracks]
    ledger = {row["track_id"]: row for row in await world.rows("SELECT * FROM media_files")}
    assert observer.looks > 100
    assert observer.seen == {path: ledger[path.stem]["sha256"] for path in observer.seen}
    assert len(observer.seen) >= len(tracks) - 1, "the last may be placed after the last look"
    await assert_lawful(world)


async def _not_refused(world: World) -> list[str]:
    items = await world.items()
    return [item["track_name"] for item in items if item["stage"] != "retry_wait"]


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_track_that_stays_broken_fails(world: World, retries: int) -> None:
    """The budget is bounded: after MAX_RETRIES further tickets, each with a broken source that was
    not known yet, the item has FAILED."""
    (track,) = world.add_album(1, 1, seconds=SECONDS)
    good = make_audio(world.folder / "good.mp3", seconds=SECONDS, codec="mp3")
    bad = [cut(world.folder / f"bad-{number}.mp3", good) for number in range(9)]
    world.faults.substitute[f"song {int(track[1:])}"] = bad
    await queue(world, [track], seconds=SECONDS)
    await world.run("ticketer", "poller", "fetcher_writer", MAX_RETRIES=str(retries))
    (item,) = await world.until_ended(1)
    assert (item["status"], item["error_type"]) == ("FAILED", "corruption")
    assert (item["retry_count"], item["attempt"]) == (retries, retries + 1)
    assert item["error_evidence"]["rule"] == "truncated"
    assert world.standin.requests["POST /tickets"] == retries + 1
    assert in_audio(world) == []
    await assert_lawful(world)
