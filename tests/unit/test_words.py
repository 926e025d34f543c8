"""What the command line says is what the API answered, in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from services import words

ITEM: dict[str, Any] = {
    "status": "PENDING",
    "reason": "the torrent is complete",
    "waiting_for": "space: /media has 3 MiB free",
    "error_message": None,
}


def test_an_item_tells_what_it_waits_for_not_the_last_reason() -> None:
    """F5: a full disk, not "the torrent is complete"; a failed one tells why it failed."""
    assert words.situation(ITEM) == "space: /media has 3 MiB free"
    failed = ITEM | {"status": "FAILED", "waiting_for": None, "error_message": "no such song"}
    assert words.situation(failed) == "no such song"
    assert words.situation(ITEM | {"status": "COMPLETED", "waiting_for": None}) == ""


@pytest.mark.parametrize(
    ("offset", "shown", "line"),
    [
        (0, 50, "50 of 312, --offset 50 shows more"),
        (50, 50, "51 to 100 of 312, --offset 100 shows more"),
        (300, 12, "301 to 312 of 312"),
        (0, 312, ""),
    ],
)
def test_a_list_says_how_much_of_it_was_shown(offset: int, shown: int, line: str) -> None:
    """F12: with the option that shows the rest."""
    assert words.rest({"items": [{}] * shown, "offset": offset, "total": 312}) == line


STATS: dict[str, Any] = {
    "by_status": {"PENDING": 1200, "DOWNLOADING": 3, "COMPLETED": 40, "FAILED": 2},
    "by_stage": {"needs_approval": 1, "needs_choice": 0},
    "oldest_pending_age_s": 3 * 86_400 + 7_200,
    "rates": {
        "completed_last_hour": 1,
        "failed_last_hour": 0,
        "completed_last_day": 40,
        "failed_last_day": 2,
        "bytes_last_day": 312_400_000,
    },
    "library": {
        "placed": 1040,
        "published": 40,
        "playable": 38,
        "not_playable": [
            {"reason": "not published", "count": 1000},
            {"reason": "the server says no", "count": 2},
        ],
    },
    "acquisition": {"way": "direct", "reason": "ACQUISITION says so"},
    "downloads": {"in_flight": 2, "max_in_flight": 20},
    "searches": {"last_hour": 7, "per_hour": 60},
    "tickets": {"in_flight": 3, "max_in_flight": 50, "need_approval": 1},
    "outbox": {"waiting": 0, "oldest_s": None},
    "refused_files": {"count": 0, "bytes": 0},
    "presence_problems": {"outside": 0, "broken": 0, "second": 0},
    "paused": [
        {"dependency": "space", "stage": "fetching", "to_do": "free some space", "why": "x"},
    ],
    "health": {
        "postgres": {"ok": True, "detail": "ok"},
        "torrentino": {"ok": None, "detail": "no process has talked to it"},
        "media": {"ok": True, "detail": "ok", "free_mb": 900},
        "space": {"ok": False, "detail": "/media has 900 MiB free", "since": 0},
    },
}


def test_statistics_are_sentences() -> None:
    """Counts, ages, what is well, and what is not with what to do."""
    lines = words.stats(STATS)
    assert lines[:11] == [
        "Queue: 1,200 waiting, 3 in work, 40 completed, 2 failed.",
        "1 item needs a decision: see `attention`.",
        "The oldest has been waiting for 3 d 2 h.",
        "Last hour: 1 completed and 0 failed; last day: 40 completed and 2 failed, 312.4 MB.",
        "Files: placed 1,040, published 40, playable 38.",
        "    1,000 not published",
        "    2 the server says no",
        "Acquisition mode: direct (ACQUISITION says so).",
        "At Torrentino: 3 of at most 50 tickets, 1 to be approved there.",
        "At the torrent client: 2 of at most 20 downloads. Searches in the last hour: 7 of 60.",
        "Available: postgres, media.",
    ]
    assert "Not used yet: torrentino." in lines
    assert lines[-1].startswith("UNAVAILABLE since ")
    assert lines[-1].endswith(
        "space: /media has 900 MiB free. Stopped: fetching. To do: free some space."
    )


SCAN: dict[str, Any] = {
    "mode": "dry_run",
    "state": "running",
    "problem": None,
    "total": 100_000,
    "scanned": 12_000,
    "present": 11_000,
    "in_queue": 5,
    "missing": 995,
    "unrecorded": 0,
    "to_adopt": 0,
    "adopted": 0,
    "broken": 0,
    "refused": 0,
    "scope": {"scope": "all", "adopt": False},
    "queued": 0,
    "limit": None,
    "limit_reached": False,
    "started_at": 1,
    "sample": [
        {
            "track_id": f"track{n}",
            "track_name": f"Song {n}",
            "artist_names": ["One", "Two"],
            "album_name": "Album",
        }
        for n in range(50)
    ],
}


def test_a_scan_is_sentences() -> None:
    """How far it came, what it found, a few of the tracks, how it ended."""
    lines = words.scan(SCAN | {"state": "cancelled", "problem": "cancelled by admin"})
    assert lines[0] == (
        "Checked 12,000 of about 100,000 tracks: 11,000 have a file, 5 are in the queue,"
        " 995 have none."
    )
    assert lines[1] == "Nothing was queued; --queue queues them."
    assert lines[2] == "    track0  One, Two - Song 0 (Album)"
    assert lines[-2] == "    and 985 more"
    assert lines[-1] == "The scan was cancelled: cancelled by admin."
    queued = words.scan(SCAN | {"mode": "queue", "queued": 1, "missing": 1, "sample": []})
    assert queued[1] == "1 track queued."


def test_a_scan_says_what_it_found_of_files() -> None:
    """What a dry run leaves to --adopt, what that recorded, and what has to be corrected."""
    lines = words.scan(SCAN | {"to_adopt": 1, "broken": 2, "refused": 1, "missing": 0})
    assert lines[1:4] == [
        "1 file not verified yet: one is when its track is requested, all are by --adopt.",
        "2 named files are broken: see `problems`.",
        "1 path of the catalog may not be used: see `problems`.",
    ]
    adopting = SCAN | {"adopted": 7, "scope": {"scope": "all", "adopt": True}}
    assert words.scan(adopting)[1] == "7 files verified and recorded."
    assert words.scan_progress(adopting).endswith(", 7 files recorded")


def test_refusals_are_lines() -> None:
    """Kept files by their number in the statistics, one by one in their list; and blocks."""
    stats = words.stats(STATS | {"refused_files": {"count": 2, "bytes": 5_000_000}})
    assert "2 refused downloads kept, 5.0 MB: see `refused list`." in stats
    file = {
        "id": "f1",
        "track_id": "t1",
        "track_name": None,
        "file": "01.flac",
        "size_bytes": 5_000_000,
        "state": "released",
        "kept_until": 0,
        "reason": "too long",
    }
    assert words.refused_file(file) == ["f1  t1: 01.flac (5.0 MB, released)", "    too long"]
    assert "kept until" in words.refused_file(file | {"state": "kept"})[0]
    block = {
        "source": "h",
        "release": None,
        "why": "lacks",
        "track_id": "t1",
        "track_name": "Song",
        "reason": "not in it",
    }
    assert words.blocked_source(block) == ["h  lacks, for t1 Song", "    not in it"]
    assert words.lifted({"lifted": ["t1"], "failed": []}) == "lifted for 1 track"
    assert words.lifted({"lifted": ["t1", "t2"], "failed": ["i"]}).endswith("`retry` them: i")


def test_presence_problems_are_lines() -> None:
    """In the statistics by their number, in the list one by one."""
    lines = words.stats(STATS | {"presence_problems": {"outside": 1, "broken": 0, "second": 2}})
    assert (
        "The catalog names files that need a correction: 1 not usable, 2 beside another file;"
        " see `problems`."
    ) in lines
    row = {"track_id": "t", "kind": "outside", "audio_uri": "../x", "detail": "why"}
    assert words.presence_problem(row) == "t  outside: ../x (why)"
    album = {"queued": 1, "already_queued": 0, "already_available": 2, "broken": ["t"]}
    assert words.album_counts(album).endswith("1 with a broken file: see `problems`")


def test_a_scan_says_how_far_it_is_and_what_keeps_it() -> None:
    """Each state of one that has not ended."""
    assert words.scan_progress(SCAN) == "12,000 of about 100,000 tracks, 995 without a file"
    assert words.scan_progress(SCAN | {"started_at": None}) == "waits for the watchdog"
    assert words.scan_progress(SCAN | {"problem": "no disk"}) == "waits: no disk"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h")],
)
def test_durations(seconds: int, text: str) -> None:
    """The two largest units that are not 0."""
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000_000, "2.5 GB")],
)
def test_sizes(number: int, text: str) -> None:
    """In powers of ten, as disks are sold."""
    assert words.size(number) == text
