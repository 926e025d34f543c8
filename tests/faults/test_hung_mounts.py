"""A mount whose server is away: its own work waits, and everything else is answered."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.fetcher_writer.delivery.shared_folder import SharedFolder
from shared.errors import DependencyDown
from shared.threads import MEDIA, Threads
from tests.support.ingest_helpers import V1, ask, serve
from tests.support.world import ADMIN, World, eventually, track_id


class Mount:
    """A folder of which each listing and status hangs, from `hang` until `answer`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answers = threading.Event()
        self._monkeypatch = monkeypatch
        self._hanging = 0

    async def hangs(self) -> bool:
        """Whether a call hangs, or has hung."""
        return self._hanging > 0

    def hang(self, path: Path) -> None:
        """Every `os.scandir` of the path, and of what is below, hangs from now on."""
        scandir, stat = os.scandir, os.stat

        def waiting(where: object) -> None:
            if isinstance(where, str | os.PathLike) and Path(where).is_relative_to(path):
                self._hanging += 1
                self._answers.wait()

        def slow_scandir(where: object = ".") -> object:
            waiting(where)
            return scandir(where)  # type: ignore[call-overload]

        def slow_stat(where: object, **how: object) -> object:
            waiting(where)
            return stat(where, **how)  # type: ignore[arg-type]

        self._monkeypatch.setattr(os, "scandir", slow_scandir)
        self._monkeypatch.setattr(os, "stat", slow_stat)

    def answer(self) -> None:
        self._monkeypatch.undo()
        self._answers.set()


@pytest.fixture
def mount(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    made = Mount(monkeypatch)
    yield made
    made.answer()


async def test_requests_do_not_wait_for_the_threads_of_others(world: World) -> None:
    """F20: with every thread of the default executor taken, a request is answered."""
    world.add_album(1, 1, seconds=2)
    api = await serve(world, "ingest")
    release = threading.Event()
    taken = [asyncio.create_task(asyncio.to_thread(release.wait)) for _ in range(64)]
    try:
        async with asyncio.timeout(10):
            assert (await ask(api, track_id(1001))).status_code == 202
    finally:
        release.set()
        await asyncio.gather(*taken)


async def test_a_hung_incoming_folder_takes_its_own_threads(tmp_path: Path, mount: Mount) -> None:
    """Its checks end with an error; the media root and the default executor are free."""
    folder = SharedFolder(dest_root="/incoming", dest_mount=tmp_path)
    await folder.check()
    mount.hang(tmp_path)
    checks = [asyncio.create_task(folder.check()) for _ in range(20)]
    await eventually(mount.hangs)
    async with asyncio.timeout(5):
        assert await MEDIA.soon(int, "1") == 1
        assert await asyncio.to_thread(int, "2") == 2
    mount.answer()
    await asyncio.gather(*checks)


async def test_requests_while_the_media_root_hangs(world: World, mount: Mount) -> None:
    """What needs the disk gets 503 soon, what does not is answered at once."""
    world.add_album(1, 1, seconds=2)
    api = await serve(world, "ingest")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MEDIA, "within_s", 0.3)
        mount.hang(world.media)
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(ask(api, track_id(1001)) for _ in range(30)))
            limits = await api.get(f"{V1}/limits", headers=ADMIN)
    assert limits.status_code == 200
    assert {answer.status_code for answer in answers} == {503}
    assert "does not respond" in answers[0].json()["detail"]
    mount.answer()
    assert (await ask(api, track_id(1001))).status_code == 202


async def test_calls_that_hang_are_bounded() -> None:
    """With half of the threads hung, the next call fails at once; when they return, it works."""
    threads = Threads("media", "the disk", count=4, within_s=0.05)
    release, calls = threading.Event(), 0

    def hang() -> None:
        nonlocal calls
        calls += 1
        release.wait()

    for _ in range(10):
        with pytest.raises(DependencyDown, match="the disk does not respond"):
            await threads.soon(hang)
    assert calls == 2
    release.set()
    await eventually(lambda: _works(threads), bool)


async def _works(threads: Threads) -> bool:
    try:
        return await threads.soon(int, "1") == 1
    except DependencyDown:
        return False
