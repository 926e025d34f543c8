"""A folder that another program writes to while it is read: it is never left, and limits hold."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from services.fetcher_writer.delivery import dirfd
from services.fetcher_writer.delivery.base import MAX_FILE_BYTES, DeliveredFile
from services.fetcher_writer.delivery.candidates import MAX_TICKET_BYTES, check_placed
from services.fetcher_writer.delivery.collector import Collector
from services.fetcher_writer.delivery.shared_folder import SharedFolder
from services.fetcher_writer.work import Ticket
from shared.errors import AttemptFailed, CorruptAudio, DependencyDown
from shared.media.place import stage
from shared.media.refused import (
    keep_refused,
    kept_file,
    kept_ids,
    move_aside,
    offer_kept,
    prune_refused,
    sweep_kept,
)
from shared.media.root import write_sentinel

ROOT = "/media/incoming"
TICKET = f"{ROOT}/t1"
DEEP = DeliveredFile(name="a/b/song.mp3", size_bytes=4)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (tmp_path / "incoming" / "t1" / "a" / "b").mkdir(parents=True)
    (tmp_path / "incoming" / "t1" / "a" / "b" / "song.mp3").write_bytes(b"song")
    (tmp_path / "media" / ".incoming").mkdir(parents=True)
    secret = tmp_path / "secret" / "b"
    secret.mkdir(parents=True)
    (secret / "song.mp3").write_bytes(b"XXXX")
    return tmp_path / "incoming"


@pytest.fixture
def shared(incoming: Path) -> SharedFolder:
    return SharedFolder(dest_root=ROOT, dest_mount=incoming)


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    return tmp_path / "media" / ".incoming" / "item.1.part"


@pytest.mark.parametrize("where", ["t1", "t1/a", "t1/a/b", "t1/a/b/song.mp3"])
async def test_a_link_at_any_depth_leads_nowhere(
    where: str, shared: SharedFolder, incoming: Path, temp: Path, tmp_path: Path
) -> None:
    """Neither a folder on the way nor the file itself may be a link when it is opened."""
    victim = incoming / where
    victim.rename(tmp_path / "moved")
    target = {"t1": "secret", "t1/a": "secret", "t1/a/b": "secret/b"}.get(
        where, "secret/b/song.mp3"
    )
    victim.symlink_to(tmp_path / target)
    with pytest.raises(AttemptFailed):
        await shared.collect(TICKET, DEEP, temp)
    assert not temp.exists()
    assert (tmp_path / "secret" / "b" / "song.mp3").read_bytes() == b"XXXX"


def swapping(real: Callable[..., Any], victim: Path, target: Path) -> Callable[..., Any]:
    """`real`, before whose first call about the victim's name it becomes a link."""

    def swap(name: Any, *args: Any, **named: Any) -> Any:
        if str(name).rpartition("/")[2] == victim.name and not victim.is_symlink():
            victim.rename(victim.with_name("moved"))
            victim.symlink_to(target)
        return real(name, *args, **named)

    return swap


@pytest.mark.parametrize("call", ["open", "link"])
@pytest.mark.parametrize("where", ["a", "a/b", "a/b/song.mp3"])
async def test_a_name_swapped_under_way_leads_nowhere(
    where: str, call: str, shared: SharedFolder, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between check and opening, or opening and link: only the ticket's file is ever taken."""
    folder = temp.parents[2]
    victim = folder / "incoming" / "t1" / where
    target = folder / "secret" / Path(where).relative_to("a")
    monkeypatch.setattr(os, call, swapping(getattr(os, call), victim, target))
    try:
        await shared.collect(TICKET, DEEP, temp)
    except AttemptFailed:
        assert not temp.exists()
    else:
        assert temp.read_bytes() == b"song"
        assert not temp.is_symlink()


async def test_removing_never_leaves_the_folder(
    shared: SharedFolder, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that becomes a link while it is removed: what it leads to stays."""
    victim = incoming / "t1" / "a"
    monkeypatch.setattr(os, "open", swapping(os.open, victim, tmp_path / "secret"))
    # Told, and tried again later; what matters is below.
    with suppress(AttemptFailed, DependencyDown):
        await shared.remove(TICKET)
    assert (tmp_path / "secret" / "b" / "song.mp3").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "empty"])
async def test_what_is_no_file_is_not_opened(
    kind: str, shared: SharedFolder, incoming: Path, temp: Path
) -> None:
    """A named pipe would make a reader wait for ever."""
    path = incoming / "t1" / "a" / "b" / "song.mp3"
    path.unlink()
    make: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "empty": Path.touch,
    }
    make[kind](path)
    assert await shared.files(TICKET) == []
    with pytest.raises(AttemptFailed):
        await shared.collect(TICKET, DEEP, temp)


def test_a_file_with_another_name_is_copied(incoming: Path, temp: Path) -> None:
    """A program with the other name could write to what the catalog serves."""
    source = incoming / "t1" / "a" / "b" / "song.mp3"
    os.link(source, incoming / "kept")
    assert stage(source, temp) in ("copy", "reflink")
    assert temp.stat().st_nlink == 1


def test_a_file_that_grows_is_not_copied_for_ever(
    incoming: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte more than listed is read, which gives it away."""
    source = incoming / "t1" / "a" / "b" / "song.mp3"
    os.link(source, incoming / "kept")
    read = os.read

    def grow(fd: int, count: int) -> bytes:
        with source.open("ab") as file:
            file.write(bytes(100_000))
        return read(fd, count)

    monkeypatch.setattr(os, "read", grow)
    stage(source, temp, size_bytes=4)
    assert temp.stat().st_size == 5


async def test_a_file_beyond_the_cap_is_not_taken(shared: SharedFolder, incoming: Path) -> None:
    """A sparse file of 4 GiB and more takes no room there; copied it would fill our disk."""
    path = incoming / "t1" / "a" / "b" / "song.mp3"
    os.truncate(path, MAX_FILE_BYTES + 1)
    ticket = Ticket(id="t", path=TICKET, files_placed=1, final_size_bytes=MAX_FILE_BYTES + 1)
    with pytest.raises(CorruptAudio) as caught:
        await Collector({"incoming": shared}).candidates(ticket)
    assert caught.value.evidence["rule"] == "too_large"


def test_a_ticket_beyond_its_cap_is_not_looked_into() -> None:
    """However many files it is spread over."""
    files = [DeliveredFile(name=f"{n}.mp3", size_bytes=MAX_TICKET_BYTES // 10) for n in range(11)]
    with pytest.raises(AttemptFailed, match="are taken"):
        check_placed(files, files_placed=11, final_size_bytes=None)


async def test_another_filesystem_than_before_holds(
    shared: SharedFolder, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unmounted between two listings: the folder below is empty, and no ticket is at fault."""
    assert [file.name for file in await shared.files(TICKET)] == [DEEP.name]
    monkeypatch.setattr(shared, "device", -1)
    with pytest.raises(DependencyDown, match="is it mounted"):
        await shared.files(f"{ROOT}/t2")


def test_a_name_that_is_no_folder_is_told_from_a_missing_one(incoming: Path) -> None:
    """The first is an odd ticket, the second may be a mount that is away."""
    file = ["t1", "a", "b", "song.mp3"]
    with pytest.raises(AttemptFailed, match="not a folder"), dirfd.folder_below(incoming, file):
        pass
    with pytest.raises(FileNotFoundError), dirfd.folder_below(incoming, ["t1", "none"]):
        pass


# --- what was moved aside


def test_refused_files_are_kept_for_a_while(tmp_path: Path) -> None:
    """Thirty days, and the newest of them within the bound of their size."""
    (tmp_path / ".incoming").mkdir()
    for number in range(5):
        broken = tmp_path / f"{number}.flac"
        broken.write_bytes(bytes(100))
        move_aside(tmp_path, [broken, tmp_path / "gone"])
    folder = tmp_path / ".incoming" / "refused"
    assert prune_refused(tmp_path) == 0
    assert prune_refused(tmp_path, keep_bytes=300) == 2
    assert [path.name.partition("-")[2] for path in sorted(folder.iterdir())] == [
        "2.flac",
        "3.flac",
        "4.flac",
    ]
    assert prune_refused(tmp_path, now_s=time.time() + 31 * 86_400) == 3
    assert list(folder.iterdir()) == []


def test_only_kept_downloads_are_removed(tmp_path: Path) -> None:
    """By their ids, and after a while; links and names of other programs are not touched."""
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]
    foreign = tmp_path / "theirs.flac"
    foreign.write_bytes(b"theirs")
    (tmp_path / ".incoming").mkdir()
    temp = tmp_path / ".incoming" / "i.1.part"
    temp.write_bytes(bytes(100))
    assert keep_refused(tmp_path, temp, ids[0], most_bytes=99) is None
    assert keep_refused(tmp_path, temp, ids[0], most_bytes=100) == 100
    assert not temp.exists()
    folder = kept_file(tmp_path, ids[0]).parent
    (folder / ids[1]).symlink_to(foreign)
    (folder / "notes.txt").write_text("not ours")
    assert kept_ids(tmp_path) == [ids[0]]
    assert sweep_kept(tmp_path, ids, older_than_s=60) == 0
    later_s = time.time() + 61
    assert sweep_kept(tmp_path, ids, older_than_s=60, now_s=later_s) == 1
    assert {path.name for path in folder.iterdir()} == {ids[1], "notes.txt"}
    assert foreign.read_bytes() == b"theirs"


def test_a_kept_download_is_offered_by_a_link(tmp_path: Path) -> None:
    """The kept one stays until the item is completed; a link to another file is not followed."""
    file_id = "00000000-0000-4000-8000-000000000001"
    temp, source = tmp_path / ".incoming" / "i.1.part", tmp_path / ".incoming" / "i.0.part"
    source.parent.mkdir()
    source.write_bytes(b"audio")
    assert not offer_kept(tmp_path, file_id, temp)
    keep_refused(tmp_path, source, file_id, most_bytes=100)
    assert offer_kept(tmp_path, file_id, temp)
    assert temp.samefile(kept_file(tmp_path, file_id))
    kept_file(tmp_path, file_id).unlink()
    kept_file(tmp_path, file_id).symlink_to(temp)
    assert not offer_kept(tmp_path, file_id, tmp_path / ".incoming" / "i.2.part")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_mark_that_cannot_be_written_leaves_none(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half a mark nor its temporary file; the next start writes it."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DependencyDown, match="free some space"):
        write_sentinel(tmp_path, "an-id")
    assert list((tmp_path / ".incoming").iterdir()) == []
