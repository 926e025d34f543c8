"""What only the stand-in can be asked for: whole lifecycles, fates, races of a cancel, restarts.

These are cases that the real server's own tests leave out (reference, section 8, 22).
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from pathlib import Path

import pytest

from services.local.torrentino import Faults, SongList
from tests.support.standin_helpers import (
    AUDIO,
    JSON,
    body,
    client,
    create,
    eventually,
    listening,
    messages,
    quick,
    reaching,
    served,
    songs,
    track_body,
)


async def test_a_ticket_arrives(tmp_path: Path) -> None:
    """From pending to a `.converted` file, byte for byte, below a folder that did not exist."""
    dest = tmp_path / "incoming" / "1"
    async with served(tmp_path, "Song") as (standin, api), listening(standin) as socket:
        ticket = await create(api, track_body("Song", dest))
        seen = await messages(socket, lambda last: last.get("state") == "completed")
        kinds = [each["state"] for each in seen if each["type"] == "ticket_update"]
        done = (await api.get(f"/tickets/{ticket['id']}")).json()
        (torrent,) = (await api.get("/torrents")).json()["torrents"]
        audit = (await api.get(f"/audit?ticket_id={ticket['id']}&limit=1000")).json()["events"]
    assert list(dict.fromkeys(kinds)) == [
        "pending",
        "acquiring",
        "auto_approved",
        "downloading",
        "converting",
        "placing",
        "completed",
    ]
    phases = [each["phase"] for each in seen if each["type"] == "pipeline_progress"]
    assert phases == ["converting", "placing"]
    file = dest / "The Band - Song.flac.converted"
    assert [*dest.iterdir()] == [file]
    assert file.read_bytes() == AUDIO + b"Song"
    assert done["state"]["stats"] == {
        "total_download_bytes": 0,
        "download_duration_secs": 0,
        "conversion_duration_secs": 0,
        "final_size_bytes": len(AUDIO) + 4,
        "files_placed": 1,
    }
    assert done["updated_at"] > done["created_at"]
    assert (torrent["name"], torrent["progress"]) == ("The Band - Song.flac", 1.0)
    started = next(each for each in audit if each["event_type"] == "conversion_started")
    assert started["data"]["input_path"].endswith("/The Band - Song.flac")
    assert audit[-1]["event_type"] == "ticket_created"


async def test_downloading_is_rewritten(tmp_path: Path) -> None:
    """A download shows progress, speed and candidates, and a new `updated_at` every beat."""
    async with served(tmp_path, "Song", config=quick(download_s=60)) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        early = await reaching(api, ticket["id"], "downloading")

        async def moved() -> JSON | None:
            later: JSON = (await api.get(f"/tickets/{ticket['id']}")).json()
            return (
                later if later["state"]["progress_pct"] > early["state"]["progress_pct"] else None
            )

        state = (later := await eventually(moved))["state"]
    assert later["updated_at"] > early["updated_at"]
    assert set(state) == {
        "type",
        "info_hash",
        "progress_pct",
        "speed_bps",
        "eta_secs",
        "started_at",
        "candidate_idx",
        "failover_round",
        "last_progress_pct",
        "last_progress_at",
        "candidates",
    }
    assert re.fullmatch("[0-9a-f]{40}", state["info_hash"])
    assert state["info_hash"] == state["candidates"][0]["info_hash"]
    assert state["speed_bps"] > 0
    assert state["eta_secs"] >= 1


@pytest.mark.parametrize(
    ("fate", "kind", "expected"),
    [
        ("not_found", "acquisition_failed", {"reason": "No suitable candidates found"}),
        ("search_error", "acquisition_failed", {"candidates_seen": 0}),
        ("needs_approval", "needs_approval", {"confidence": 0.1, "recommended_idx": 0}),
        ("download_stalled", "failed", {"retryable": False, "retry_count": 0}),
        ("add_failed", "failed", {"retryable": True}),
        ("conversion_failed", "failed", {"retryable": False}),
        ("multi_file", "failed", {"retryable": True}),
        ("unknown_state", "from_the_future", {}),
        ("pending_retry", "completed", {}),
        ("failover", "completed", {}),
        ("empty_hash", "completed", {}),
        ("no_files", "completed", {}),
        ("size_mismatch", "completed", {}),
        ("typo", "failed", {"retryable": False}),
    ],
)
async def test_fates(tmp_path: Path, fate: str, kind: str, expected: JSON) -> None:
    """Each fate ends where it says."""
    faults = Faults(fates={"song": fate})
    async with served(tmp_path, "Song", faults=faults) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        state = (await reaching(api, ticket["id"], kind))["state"]
    assert {name: state[name] for name in expected} == expected
    size = sum(path.stat().st_size for path in (tmp_path / "d").glob("*"))
    if fate == "no_files":
        assert (state["stats"]["files_placed"], size) == (0, 0)
    if fate == "size_mismatch":
        assert 0 < size < state["stats"]["final_size_bytes"]
    if fate == "multi_file":
        assert (tmp_path / "d" / "The Band - Song.converted").read_bytes() == b""
        assert state["error"].startswith("Placement failed: Failed to copy file from ")


async def test_a_failover_loses_progress(tmp_path: Path) -> None:
    """Progress is not monotonic, and the info-hash changes on the way."""
    faults = Faults(fates={"song": "failover"})
    config = quick(download_s=0.6)
    async with served(tmp_path, "Song", faults=faults, config=config) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        seen: list[tuple[str, float]] = []

        async def look() -> bool:
            state = (await api.get(f"/tickets/{ticket['id']}")).json()["state"]
            if state["type"] == "downloading":
                seen.append((state["info_hash"], state["progress_pct"]))
            return bool(state["type"] == "completed")

        await eventually(look)
    first, second = dict.fromkeys(info_hash for info_hash, _ in seen)
    top = max(percent for info_hash, percent in seen if info_hash == first)
    assert top > min(percent for info_hash, percent in seen if info_hash == second)


async def test_a_stuck_download_goes_on(tmp_path: Path) -> None:
    """Progress stands still for as long as the fate does."""
    faults = Faults(fates={"song": "stuck_downloading"})
    async with served(tmp_path, "Song", faults=faults) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))

        async def halted() -> bool:
            state = (await api.get(f"/tickets/{ticket['id']}")).json()["state"]
            return state.get("progress_pct") == 50.0 and state["eta_secs"] is None

        await eventually(halted)
        faults.fates.clear()
        await reaching(api, ticket["id"], "completed")


async def test_an_empty_hash_delivers_something_else(tmp_path: Path) -> None:
    """The monitor follows the first torrent of the list, whosever it is."""
    async with served(tmp_path, "Right", "Wrong") as (standin, api):
        first = await create(api, track_body("Wrong", tmp_path / "a"))
        await reaching(api, first["id"], "completed")
        standin.faults.fates["right"] = "empty_hash"
        second = await create(api, track_body("Right", tmp_path / "b"))
        await reaching(api, second["id"], "completed")
    (file,) = (tmp_path / "b").iterdir()
    assert file.read_bytes().endswith(b"Wrong")


async def test_approval(tmp_path: Path) -> None:
    """Case 10: approved by index, checked against the candidates, then it continues by itself."""
    async with served(tmp_path, "Song", faults=Faults(fates={"song": "needs_approval"})) as (
        _,
        api,
    ):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        path = f"/tickets/{ticket['id']}"
        await reaching(api, ticket["id"], "needs_approval")
        assert (await api.post(f"{path}/retry")).status_code == 409
        outside = await api.post(f"{path}/approve", json={"candidate_idx": 7})
        assert outside.status_code == 400
        text = "Invalid candidate index: 7 (only 2 candidates available)"
        assert outside.json() == {"error": text}
        state = (await api.post(f"{path}/approve", json={"candidate_idx": 1})).json()["state"]
        assert (state["type"], state["selected"]) == ("approved", state["candidates"][1])
        await reaching(api, ticket["id"], "completed")
        other = await create(api, track_body("Song", tmp_path / "e"))
        await reaching(api, other["id"], "needs_approval")
        answer = await api.post(f"/tickets/{other['id']}/reject", json={"reason": "no"})
        assert answer.json()["state"]["type"] == "rejected"
        assert answer.json()["state"]["reason"] == "no"


async def test_a_cancel_is_lost_while_acquiring(tmp_path: Path) -> None:
    """2.5: the outcome is written over it."""
    async with served(tmp_path, "Song", config=quick(acquire_s=0.3)) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        await reaching(api, ticket["id"], "acquiring")
        answer = await api.delete(f"/tickets/{ticket['id']}")
        assert answer.json()["state"]["type"] == "cancelled"
        await reaching(api, ticket["id"], "completed")


async def test_a_cancel_is_lost_while_downloading(tmp_path: Path) -> None:
    """2.5: `downloading` comes back without candidates, and fails at the end."""
    async with served(tmp_path, "Song", config=quick(download_s=0.6)) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        await reaching(api, ticket["id"], "downloading")
        await api.delete(f"/tickets/{ticket['id']}")
        again = await reaching(api, ticket["id"], "downloading")
        assert again["state"]["candidates"] == []
        state = (await reaching(api, ticket["id"], "failed"))["state"]
    assert "No candidate at current index in Downloading state" in state["error"]


async def test_a_cancel_is_lost_while_placing(tmp_path: Path) -> None:
    """2.5: the pipeline carries on; the file grows under its final name before `completed`."""
    dest = tmp_path / "d"
    async with served(tmp_path, "Song", config=quick(place_s=0.8)) as (_, api):
        ticket = await create(api, track_body("Song", dest))
        await reaching(api, ticket["id"], "placing")
        await api.delete(f"/tickets/{ticket['id']}")

        async def growing() -> int | None:
            sizes = [path.stat().st_size for path in dest.glob("*.converted")]
            return sizes[0] if sizes and sizes[0] else None

        assert await eventually(growing) < len(AUDIO)
        await reaching(api, ticket["id"], "completed")


async def test_a_cancel_with_its_torrent_is_for_good(tmp_path: Path) -> None:
    """2.5: the ticket first, then the torrent; a retry of it hangs until a restart."""
    config = quick(download_s=30, tick_s=0.1)
    async with served(tmp_path, "Song", "Other", config=config) as (standin, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        state = (await reaching(api, ticket["id"], "downloading"))["state"]
        await api.delete(f"/tickets/{ticket['id']}")
        gone = await api.delete(f"/torrents/{state['info_hash']}?delete_files=true")
        assert gone.status_code == 200
        other = await create(api, track_body("Other", tmp_path / "e"))
        await reaching(api, other["id"], "downloading")  # beats have gone by
        ended = await reaching(api, ticket["id"], "cancelled", "failed")
        missing = await api.get(f"/torrents/{state['info_hash']}")
        assert missing.status_code == 404
        if ended["state"]["type"] == "failed":  # a beat came between the two
            assert ended["state"]["error"] == "Download stalled: no candidates available"
        else:
            await api.post(f"/tickets/{ticket['id']}/retry")
            await reaching(api, ticket["id"], "auto_approved")
            await standin.restart()
            await reaching(api, ticket["id"], "downloading")


async def test_a_torrent_removed_first_fails_over(tmp_path: Path) -> None:
    """2.5: the reverse order only moves on to the next candidate."""
    async with served(tmp_path, "Song", config=quick(download_s=30)) as (_, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        state = (await reaching(api, ticket["id"], "downloading"))["state"]
        await api.delete(f"/torrents/{state['info_hash']}")

        async def moved_on() -> bool:
            now = (await api.get(f"/tickets/{ticket['id']}")).json()["state"]
            return bool(now["candidate_idx"] == 1)

        await eventually(moved_on)


async def test_restart(tmp_path: Path) -> None:
    """Acquiring, converting and placing are stuck for ever, downloading continues."""
    config = quick(database=tmp_path / "db", download_s=0.6, place_s=30)
    async with served(tmp_path, "Song", "Other", config=config) as (standin, api):
        stuck = await create(api, track_body("Song", tmp_path / "d"))
        await reaching(api, stuck["id"], "placing")
        moving = await create(api, track_body("Other", tmp_path / "e"))
        await reaching(api, moving["id"], "downloading")
        await standin.restart()
        await reaching(api, moving["id"], "placing")
        assert (await reaching(api, stuck["id"], "placing"))["id"] == stuck["id"]
        status = (await api.get("/pipeline/status")).json()
        assert status["placing_tickets"] == [moving["id"]]
        before = standin.tickets()
    async with served(tmp_path, "Song", "Other", config=config) as (standin, api):
        assert [each["id"] for each in standin.tickets()] == [each["id"] for each in before]


async def test_another_process_takes_over(tmp_path: Path) -> None:
    """With a database the tickets outlive the process; a download continues where it was."""
    config = quick(database=tmp_path / "db", download_s=0.5)
    faults = Faults(fates={"song": "stuck_downloading"})
    async with served(tmp_path, "Song", config=config, faults=faults) as (standin, api):
        ticket = await create(api, track_body("Song", tmp_path / "d", priority=7))

        async def half_way() -> bool:
            (now,) = standin.tickets()
            state = now["state"]
            return isinstance(state, dict) and state.get("progress_pct") == 50.0

        await eventually(half_way)
    async with served(tmp_path, "Song", config=config) as (_, api):
        again = (await api.get(f"/tickets/{ticket['id']}")).json()
        assert again["state"]["progress_pct"] >= 50.0
        assert (again["priority"], again["created_at"]) == (7, ticket["created_at"])
        await reaching(api, ticket["id"], "completed")
        audit = (await api.get(f"/audit?ticket_id={ticket['id']}")).json()["events"]
        assert audit[-1]["event_type"] == "ticket_created"


async def test_set_state(tmp_path: Path) -> None:
    """Any state can be forced on a ticket, and nothing that was under way writes over it."""
    async with served(tmp_path, "Song", config=quick(download_s=0.1)) as (standin, api):
        ticket = await create(api, track_body("Song", tmp_path / "d"))
        other = await create(api, track_body("Song", tmp_path / "e"))
        await reaching(api, ticket["id"], "downloading")
        standin.set_state(ticket["id"], {"type": "converting", "weird": [1]})
        await reaching(api, other["id"], "completed")
        answer = (await api.get(f"/tickets/{ticket['id']}")).json()["state"]
        assert answer == {"type": "converting", "weird": [1]}
        assert (await api.get("/tickets?state=converting")).json()["total"] == 1
        with pytest.raises(KeyError):
            standin.set_state("nobody", {"type": "pending"})


async def test_its_own_process(tmp_path: Path) -> None:
    """`python -m services.local.torrentino` serves a folder, and leaves with 0 on SIGTERM."""
    (tmp_path / "The Band - Song.flac").write_bytes(AUDIO)
    command = ["-m", "services.local.torrentino", "--songs", str(tmp_path), "--acquire-s", "0"]
    command += ["--download-s", "0", "--client", "librqbit", "--save-path", "/in/a/container"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            assert process.stdout is not None
            url = (await process.stdout.readline()).decode().split()[-1]
            async with client(url) as api:
                ticket = await create(api, body("the band song", dest_path=str(tmp_path / "d")))
                await reaching(api, ticket["id"], "completed")
                assert (await api.get("/torrents/status")).json()["backend"] == "librqbit"
                (torrent,) = (await api.get("/torrents")).json()["torrents"]
                assert torrent["save_path"] == "/in/a/container"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_songs_from_json(tmp_path: Path) -> None:
    """Priorities decide who is looked for first; a list of songs is found by its words."""
    source = songs(tmp_path, "Song", "Long Song")
    assert isinstance(source, SongList)
    found = source.find({"description": "the long song of the band", "tags": []})
    assert found is not None
    assert found.title == "Long Song"
    assert source.find({"expected": {"type": "album", "title": "Song"}}) is None
    context = {"expected": {"type": "track", "title": "SONG", "artist": "the band, Others"}}
    assert source.find(json.loads(json.dumps(context))) is not None
