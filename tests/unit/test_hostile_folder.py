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
from shared.media.refused import move_aside, prune_refused
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
