"""What Torrentino says is kept and shown without its secrets, wherever it ends up."""

from __future__ import annotations

import json

import pytest

from tests.support.stages import Stages, one, queue
from tests.support.world import World
from tests.unit.test_text import HOSTILE, LEAKS, SECRET

_TABLES = """
SELECT table_name AS name FROM information_schema.tables
 WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
"""
LEAK = " | ".join(LEAKS) + HOSTILE
CANDIDATE = {
    "title": LEAK,
    "info_hash": "a" * 40,
    "size_bytes": 1000,
    "seeders": 3,
    "score": 0.5,
    "magnet_uri": LEAK,
    "torrent_url": LEAK,
}


async def _everything(world: World) -> str:
    """Every row of every table, as text."""
    rows = []
    for table in await world.rows(_TABLES):
        rows += await world.rows(f'SELECT to_jsonb(t) AS row FROM "{table["name"]}" t')
    return json.dumps(rows, ensure_ascii=False)


STATES = (
    {"type": "failed", "error": LEAK, "retryable": False, "failed_at": "2026-01-01T00:00:00Z"},
    {"type": "acquisition_failed", "reason": LEAK, "queries_tried": [LEAK]},
    {"type": "pending_retry", "error": LEAK, "attempt": 1},
    {"type": "cancelled", "reason": LEAK, "cancelled_by": LEAK},
    {"type": "rejected", "reason": LEAK, "rejected_by": LEAK},
    {"type": "needs_approval", "candidates": [CANDIDATE], "recommended_idx": 0},
    {"type": "downloading", "info_hash": LEAK, "progress_pct": 1.0, "candidates": [CANDIDATE]},
    {"type": f"new {LEAK}", "reason": LEAK},
)


@pytest.mark.parametrize("state", STATES, ids=[str(state["type"])[:12] for state in STATES])
async def test_no_row_and_no_line_has_a_secret(
    by_hand: Stages, state: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Reasons, candidates, states and hashes: not in the tables (which the API and the events
    are made from), not in the log."""
    world = by_hand.world
    (track,) = world.add_album(1, 1)
    await queue(world, [track])
    await by_hand.ticket()
    by_hand.set_state(await one(world), **state)
    await by_hand.poll()
    kept = await _everything(world)
    printed = capsys.readouterr()
    for text in (kept, printed.out + printed.err):
        assert SECRET not in text
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
    assert ("***" in kept) is (state["type"] != "downloading")
