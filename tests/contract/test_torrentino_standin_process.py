"""What a client orders of the pipeline (reference, 1.2 and 3.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.standin_albums import (
    FFMPEG_FAILED,
    audible_files,
    harbour,
    heard,
    order_of,
    process,
    spec_of,
)
from tests.support.standin_helpers import (
    JSON,
    body,
    create,
    eventually,
    reaching,
    track_body,
)


@pytest.mark.parametrize("missing", ["path", "item_id", "dest_filename"])
async def test_process_wants_all_fields_of_a_file(tmp_path: Path, missing: str) -> None:
    """1.2: 422 without one of the three."""
    async with harbour(tmp_path, orchestrator=False) as it:
        ticket = await create(it.api, body())
        file = {"path": "/x", "item_id": "track-1", "dest_filename": "1.flac"}
        del file[missing]
        answer = await process(it.api, ticket["id"], {"source_files": [file], "dest_dir": "/y"})
    assert answer.status_code == 422
    assert f"missing field `{missing}`" in answer.text


async def test_process_refusals(tmp_path: Path) -> None:
    """1.2, case 17: 422 before 404 before 400; the body says so in its own form."""
    async with harbour(tmp_path, orchestrator=False) as it:
        ticket = await create(it.api, body())
        sent: JSON = {"source_files": [], "dest_dir": str(tmp_path / "d")}
        wrong: JSON
        for wrong in ({}, {"source_files": []}, {"dest_dir": "/x"}, {**sent, "bitrate_kbps": -1}):
            assert (await process(it.api, "nobody", wrong)).status_code == 422
        nobody = await process(it.api, "nobody", {**sent, "output_format": "alac"})
        assert (nobody.status_code, nobody.json()) == (
            404,
            {"success": False, "message": "Ticket not found: nobody", "ticket_id": "nobody"},
        )
        alac = await process(it.api, ticket["id"], {**sent, "output_format": "alac"})
        text = "Unsupported output format: alac"
        assert (alac.status_code, alac.json()["message"]) == (400, text)
        # Nothing to do is done, from `pending`.
        assert (await process(it.api, ticket["id"], sent)).status_code == 202
        state = (await reaching(it.api, ticket["id"], "completed"))["state"]
        assert state["stats"]["files_placed"] == 0
        assert it.standin.requests["POST /pipeline/process/{id}"] == 7


async def test_a_job_shows_itself_and_refuses_a_second(tmp_path: Path) -> None:
    """1.2: `converting` counts the files, `/pipeline/status` lists it; one job per ticket."""
    files = audible_files(tmp_path)
    spec, dest = spec_of(files), tmp_path / "d"
    async with harbour(tmp_path, spec, orchestrator=False, convert_s=0.3) as it:
        ticket = await create(it.api, body())
        for path, source in files.items():
            (it.downloads / path).parent.mkdir(parents=True, exist_ok=True)
            (it.downloads / path).write_bytes(source.read_bytes())
        order = order_of(spec, it.downloads, dest)
        assert (await process(it.api, ticket["id"], order)).status_code == 202
        second = await process(it.api, ticket["id"], order)
        text = f"Failed to submit job: Job already exists for ticket: {ticket['id']}"
        assert (second.status_code, second.json()["message"]) == (500, text)

        async def at_the_second() -> JSON | None:
            answer = (await it.api.get(f"/pipeline/progress/{ticket['id']}")).json()
            return answer if answer.get("progress", {}).get("current_file") == 1 else None

        progress = (await eventually(at_the_second))["progress"]
        assert progress["total_files"] == 3
        assert progress["current_file_name"] == "02 - Paper Sails.flac"
        assert round(progress["percent"]) == 33
        assert not dest.exists()
        status = (await it.api.get("/pipeline/status")).json()
        assert status["converting_tickets"] == [ticket["id"]]
        assert status["conversion_pool"]["active_jobs"] == 1
        await reaching(it.api, ticket["id"], "completed")
        status = (await it.api.get("/pipeline/status")).json()
        assert (status["converting_tickets"], status["placing_tickets"]) == ([], [])


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("no audio", FFMPEG_FAILED),
        ("missing", FFMPEG_FAILED),
        ("fate", f"{FFMPEG_FAILED}1)"),
        ("twice", "Placement failed: Failed to move file from "),
    ],
)
async def test_one_bad_file_fails_the_job(tmp_path: Path, kind: str, error: str) -> None:
    """3.4: nothing is placed then; two files of one item id meet in one temporary file."""
    tone = next(iter(audible_files(tmp_path).values()))
    noise = tmp_path / "noise"
    noise.write_bytes(b"no audio" * 100)
    second = {"no audio": noise, "missing": tmp_path / "gone", "fate": tone, "twice": tone}[kind]
    dest = tmp_path / "d"
    files = [
        {"path": str(tone), "item_id": "track-1", "dest_filename": "1.mp3"},
        {
            "path": str(second),
            "item_id": "track-1" if kind == "twice" else "track-2",
            "dest_filename": "2.mp3",
        },
    ]
    # Before its search a ticket has no title that a fate could be for.
    async with harbour(tmp_path, titles=("Song",)) as it:
        if kind == "fate":
            it.standin.faults.fates["song"] = "process_failed"
        ticket = await create(it.api, track_body("Song", tmp_path / "auto"))
        await reaching(it.api, ticket["id"], "completed")
        sent = {"source_files": files, "dest_dir": str(dest), "output_format": "mp3"}
        await process(it.api, ticket["id"], sent)
        state = (await reaching(it.api, ticket["id"], "failed"))["state"]
    assert state["error"].startswith(error)
    assert state["retryable"] is (kind == "twice")
    assert [each.name for each in dest.glob("*")] == (["1.mp3"] if kind == "twice" else [])


async def test_conversion_is_real(tmp_path: Path) -> None:
    """Each format is what ffmpeg makes of it, in a folder of the client's choice."""
    tone = next(iter(audible_files(tmp_path).values()))
    async with harbour(tmp_path, orchestrator=False) as it:
        for output_format, codec in (("mp3", "mp3"), ("opus", "opus"), ("m4a", "aac")):
            ticket = await create(it.api, body())
            name = f"sub/folder/{output_format}.bin"
            file = {"path": str(tone), "item_id": "track-1", "dest_filename": name}
            sent = {
                "source_files": [file],
                "dest_dir": str(tmp_path / "d"),
                "output_format": output_format,
                "bitrate_kbps": 96,
            }
            await process(it.api, ticket["id"], sent)
            await reaching(it.api, ticket["id"], "completed")
            claims = await heard(tmp_path / "d" / name)
            assert claims.codec == codec
            if codec == "mp3":
                assert claims.bitrate_bps == pytest.approx(96_000, rel=0.05)


async def test_a_restart_strands_a_job(tmp_path: Path) -> None:
    """7, flaw 1: it stays `converting`, in no list, and can be ordered again."""
    tone = next(iter(audible_files(tmp_path).values()))
    async with harbour(tmp_path, orchestrator=False, convert_s=30) as it:
        ticket = await create(it.api, body())
        file = {"path": str(tone), "item_id": "track-1", "dest_filename": "1.flac"}
        sent = {"source_files": [file], "dest_dir": str(tmp_path / "d")}
        await process(it.api, ticket["id"], sent)
        await it.standin.restart()
        assert (await it.api.get("/pipeline/status")).json()["converting_tickets"] == []
        state = (await it.api.get(f"/tickets/{ticket['id']}")).json()["state"]
        assert (state["type"], state["total"]) == ("converting", 1)
        assert (await process(it.api, ticket["id"], sent)).status_code == 202
