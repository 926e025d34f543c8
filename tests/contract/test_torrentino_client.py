"""Our client and our stand-in for Torrentino, against each other over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from services.local.torrentino import (
    Song,
    SongList,
    Standin,
    StandinConfig,
    TorrentFile,
    TorrentSpec,
)
from shared.backoff import Backoff
from shared.errors import (
    Conflict,
    DependencyDown,
    DownloadsError,
    InvalidRequest,
    Misconfigured,
    OutcomeUnknown,
    Unknown,
)
from shared.torrentino.client import TorrentinoClient
from shared.torrentino.engine import SourceFile
from shared.torrentino.model import ExpectedTrack, RemoteState, RemoteTicket, TicketRequest
from shared.torrentino.ws import ticket_hints
from tests.support.audio import make_audio
from tests.support.world import eventually

KEY = "k3y"


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def standin(tmp_path: Path) -> AsyncIterator[Standin]:
    song = tmp_path / "song.flac"
    song.write_bytes(b"audio")
    source = SongList([Song(artist="Radiohead", title="Creep", path=song)])
    async with Standin(StandinConfig(api_key=KEY), source) as running:
        yield running


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[TorrentinoClient]:
    client = TorrentinoClient(base_url=standin.url, api_key=KEY, sleep=no_sleep)
    yield client
    await client.close()


def request(tmp_path: Path, name: str = "t1", priority: int = 100) -> TicketRequest:
    return TicketRequest(
        description="Radiohead Creep",
        artist="Radiohead",
        title="Creep",
        dest_path=str(tmp_path / "incoming" / name),
        priority=priority,
    )


def same_path(standin: Standin, dest_path: str) -> list[object]:
    return [ticket["id"] for ticket in standin.tickets() if ticket["dest_path"] == dest_path]


async def until(
    standin: Standin, client: TorrentinoClient, state: str, ticket_id: str
) -> RemoteTicket:
    """The ticket, once hints and a look say that it is in this state."""
    async with aclosing(ticket_hints(standin.url, KEY)) as hints:
        async for _ in hints:
            ticket = await client.get(ticket_id)
            assert ticket is not None
            if ticket.state == state:
                return ticket
    raise AssertionError("hints never end")


async def test_a_ticket_from_creation_to_completion(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """Woken by hints alone, the caller sees the end and what was placed."""
    wanted = request(tmp_path)
    created = await client.create(wanted)
    assert (created.state, created.dest_path) == (RemoteState.PENDING, wanted.dest_path)
    assert (created.priority, created.updated_at is not None) == (100, True)
    done = await until(standin, client, RemoteState.COMPLETED, created.id)
    assert (done.files_placed, done.final_size_bytes) == (1, 5)


async def test_lists_and_finds(standin: Standin, client: TorrentinoClient, tmp_path: Path) -> None:
    """All pages, the highest priority first; and both tickets of one destination."""
    made = [await client.create(request(tmp_path, f"t{n % 4}", priority=n)) for n in range(5)]
    listed = [ticket.id async for ticket in client.list(page_size=2)]
    assert listed == [ticket.id for ticket in reversed(made)]
    paths = [str(tmp_path / "incoming" / name) for name in ("t0", "t1", "none")]
    found = await client.find_by_dest_paths(paths)
    assert {path: {t.id for t in tickets} for path, tickets in found.items()} == {
        paths[0]: {made[0].id, made[4].id},
        paths[1]: {made[1].id},
    }
    assert [t async for t in client.list(state="no_such_state")] == []


async def test_cancel_and_retry(standin: Standin, client: TorrentinoClient, tmp_path: Path) -> None:
    """Cancelling twice is fine, and a cancelled ticket can be sent off again."""
    standin.faults.fates = {"creep": "not_found"}
    ticket = await client.create(request(tmp_path))
    failed = await until(standin, client, RemoteState.ACQUISITION_FAILED, ticket.id)
    assert failed.reason == "No suitable candidates found"
    for _ in range(2):
        cancelled = await client.cancel(ticket.id, reason="withdrawn")
        assert cancelled is not None
        assert (cancelled.state, cancelled.reason) == (RemoteState.CANCELLED, "withdrawn")
    again = await client.retry(ticket.id)
    assert again is not None
    assert again.state == RemoteState.PENDING
    with pytest.raises(Conflict):
        await client.retry(ticket.id)


async def test_approve_and_reject(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """A person sees summaries and decides once."""
    standin.faults.fates = {"creep": "needs_approval"}
    for name, decision in (("a", "approve"), ("r", "reject")):
        ticket = await client.create(request(tmp_path, name))
        waiting = await until(standin, client, RemoteState.NEEDS_APPROVAL, ticket.id)
        assert waiting.candidates
        assert set(waiting.candidates[0]) == {"title", "size_bytes", "seeders", "score"}
        if decision == "approve":
            with pytest.raises(InvalidRequest):
                await client.approve(ticket.id, candidate_idx=99)
            decided = await client.approve(ticket.id)
            expected = RemoteState.APPROVED
        else:
            decided = await client.reject(ticket.id, reason="not it")
            expected = RemoteState.REJECTED
        assert decided is not None
        assert decided.state == expected
        with pytest.raises(Conflict):
            await client.reject(ticket.id, reason="late")


async def test_removing_the_torrent(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """Cancel, then remove: the order that really stops a download."""
    standin.faults.fates = {"creep": "stuck_downloading"}
    ticket = await client.create(request(tmp_path))
    running = await until(standin, client, RemoteState.DOWNLOADING, ticket.id)
    assert running.info_hash is not None
    assert running.size_bytes is not None
    await client.cancel(ticket.id, reason="withdrawn")
    for _ in range(2):
        await client.remove_torrent(running.info_hash, delete_files=True)


async def test_reasons_carry_no_key(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """The stand-in puts one into the text, as the real one does."""
    standin.faults.fates = {"creep": "search_error"}
    ticket = await client.create(request(tmp_path))
    failed = await until(standin, client, RemoteState.ACQUISITION_FAILED, ticket.id)
    assert "apikey" in str(failed.raw_state["reason"])
    assert failed.reason is not None
    assert failed.reason.startswith("Search failed:")
    assert "apikey=***" in failed.reason


async def test_what_is_not_there(client: TorrentinoClient) -> None:
    """No ticket is no error."""
    for ticket_id in ("00000000-0000-0000-0000-000000000000", "ü?# %41"):
        assert await client.get(ticket_id) is None
    assert await client.cancel("nope", reason="") is None
    assert await client.retry("nope") is None


async def test_health_and_orchestrator(client: TorrentinoClient) -> None:
    """Both answer with the shape that we read."""
    await client.health()
    assert (await client.orchestrator())["available"] is True


# --- faults


async def test_reads_outlast_short_faults(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """A locked database and cut connections, three in a row."""
    ticket = await client.create(request(tmp_path))
    for fault in ("database_locked", "drop_before", "drop_after"):
        setattr(standin.faults, fault, 3)
        assert await client.get(ticket.id) is not None
        assert getattr(standin.faults, fault) == 0
    standin.faults.drop_before = 4
    with pytest.raises(DependencyDown):
        await client.get(ticket.id)


@pytest.mark.parametrize(
    ("fault", "settled", "effect"),
    [
        ("database_locked", True, False),
        ("database_locked_after_effect", True, True),
        ("drop_before", False, False),
        ("drop_after", False, True),
    ],
)
async def test_an_unknown_outcome_is_found_out_by_destination(
    standin: Standin,
    client: TorrentinoClient,
    tmp_path: Path,
    fault: str,
    *,
    settled: bool,
    effect: bool,
) -> None:
    """The client repeats nothing; a look by `dest_path` tells what happened."""
    wanted = request(tmp_path)
    setattr(standin.faults, fault, 1)
    with pytest.raises(OutcomeUnknown) as caught:
        await client.create(wanted)
    assert caught.value.settled == settled
    found = await client.find_by_dest_paths([wanted.dest_path])
    assert (wanted.dest_path in found) == effect
    assert len(same_path(standin, wanted.dest_path)) == int(effect)


async def test_a_late_answer_is_an_unknown_outcome(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """The ticket was made before the time was up."""
    hasty = TorrentinoClient(base_url=standin.url, api_key=KEY, timeout_s=0.5, sleep=no_sleep)
    wanted = request(tmp_path)
    standin.faults.delay_s = 60
    with pytest.raises(OutcomeUnknown) as caught:
        await hasty.create(wanted)
    assert not caught.value.settled
    with pytest.raises(DependencyDown):
        await hasty.get("t1")
    await hasty.close()
    standin.faults.delay_s = 0
    assert wanted.dest_path in await client.find_by_dest_paths([wanted.dest_path])


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("unauthorized", Misconfigured), ("html", Misconfigured), ("down", DependencyDown)],
)
async def test_a_server_that_cannot_serve_us_holds(
    standin: Standin,
    client: TorrentinoClient,
    tmp_path: Path,
    fault: str,
    expected: type[DownloadsError],
) -> None:
    """Nothing was made, so the same call may simply be repeated later."""
    wanted = request(tmp_path)
    setattr(standin.faults, fault, True)
    for call in (client.create(wanted), client.get("t1"), client.health()):
        with pytest.raises(expected):
            await call
    setattr(standin.faults, fault, False)
    assert same_path(standin, wanted.dest_path) == []
    await client.create(wanted)


async def test_a_wrong_key_or_path_is_a_setting(standin: Standin, tmp_path: Path) -> None:
    """Each names its own variable."""
    base = standin.url.removesuffix("/api/v1")
    for base_url, key, says in (
        (standin.url, "wrong", "TORRENTINO_API_KEY"),
        (standin.url, None, "TORRENTINO_API_KEY"),
        (base, KEY, "TORRENTINO_URL"),
        (f"{base}/api/v2", KEY, "TORRENTINO_URL"),
    ):
        client = TorrentinoClient(base_url=base_url, api_key=key, sleep=no_sleep)
        for call in (client.health(), client.create(request(tmp_path))):
            with pytest.raises(Misconfigured, match=says):
                await call
        await client.close()
    assert standin.tickets() == []


async def test_hints_come_back_after_a_restart(
    standin: Standin, client: TorrentinoClient, tmp_path: Path
) -> None:
    """With the hint to poll everything, because changes in between are not hinted."""
    at_once = Backoff(first_s=0, longest_s=0)
    async with aclosing(ticket_hints(standin.url, KEY, backoff=at_once)) as hints:
        assert await anext(hints) == ""
        await standin.restart()
        assert await anext(hints) == ""
        ticket = await client.create(request(tmp_path))
        assert await anext(hints) == ticket.id


@pytest.fixture
async def album(tmp_path: Path) -> AsyncIterator[tuple[Standin, TorrentinoClient]]:
    """A stand-in whose only torrent is a folder with two files, and a client of it."""
    files = []
    for number in (1, 2):
        source = make_audio(tmp_path / f"{number}.flac", seconds=1, frequency=200 * number)
        files.append(
            TorrentFile(path=f"Radiohead - Kid A/0{number} - T{number}.flac", source=source)
        )
    spec = TorrentSpec(title="Radiohead - Kid A", files=tuple(files))
    config = StandinConfig(acquire_s=0, download_s=0.1, tick_s=0.02, downloads=tmp_path / "down")
    async with Standin(config, SongList([], [spec])) as running:
        client = TorrentinoClient(base_url=running.url, api_key=None, sleep=no_sleep)
        yield running, client
        await client.close()


async def test_an_albums_folder_and_its_files(
    album: tuple[Standin, TorrentinoClient], tmp_path: Path
) -> None:
    """The whole way of an album that the pipeline cannot place: asked for, found by its traces,
    listed, placed by order, and removed for good."""
    standin, client = album
    folder = tmp_path / "incoming" / "a"
    tracks = tuple(ExpectedTrack(number=n, title=f"T{n}", duration_ms=1_000) for n in (1, 2))
    ticket = await client.create(
        TicketRequest(
            description="Radiohead Kid A",
            artist="Radiohead",
            title="Kid A",
            dest_path=str(folder),
            priority=1,
            tracks=tracks,
        )
    )
    seen: list[RemoteTicket] = []

    async def failed() -> RemoteTicket:
        found = await client.get(ticket.id)
        assert found is not None
        seen.append(found)
        return found

    failure = await eventually(failed, lambda found: found.state == RemoteState.FAILED)
    assert (failure.reason or "").startswith("Placement failed")
    path = await client.conversion_input(ticket.id)
    assert path == str(tmp_path / "down" / "Radiohead - Kid A")
    [torrent] = await client.torrents()
    info_hash = torrent.info_hash
    assert info_hash is not None
    assert (torrent.path, torrent.whole) == (path, True)
    listed = await client.catalog_files(info_hash)
    assert listed is not None
    names = [name for name, _ in listed]
    assert names == [f"Radiohead - Kid A/0{n} - T{n}.flac" for n in (1, 2)]
    mapped = [remote.file_mappings for remote in seen if remote.file_mappings]
    assert all({m["path"] for m in each} <= set(names) for each in mapped)
    files = [
        SourceFile(path=f"{torrent.save_path}/{names[1]}", item_id="f1", dest_filename="0001.flac")
    ]
    order = {"dest_dir": str(folder), "output_format": "flac", "bitrate_kbps": 320}
    await client.process(ticket.id, files, **order)  # type: ignore[arg-type]
    done = await eventually(failed, lambda found: found.state == RemoteState.COMPLETED)
    assert (done.files_placed, done.updated != failure.updated) == (1, True)
    assert (folder / "0001.flac").stat().st_size == done.final_size_bytes
    with pytest.raises(Unknown):
        await client.process("no-such-ticket", files, **order)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await client.process(ticket.id, files, **order | {"output_format": "alac"})  # type: ignore[arg-type]
    await client.remove_torrent(info_hash, delete_files=True)
    assert await client.torrent(info_hash) is None
    for _ in range(2):
        await client.delete_ticket(ticket.id)
    assert standin.tickets() == []
