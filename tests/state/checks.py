"""What is looked at after each step, and what must be so when all work is over."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection

from shared.states import Stage
from tests.state.model import (
    EVENTS,
    FAILURES,
    ITEMS,
    REQUESTERS,
    REQUESTS,
    Model,
    Seen,
)
from tests.state.setting import STALL_S, Setting, headers
from tests.support import invariants

STALLED = f"""
SELECT torrentino_id FROM tickets
 WHERE torrentino_id IS NOT NULL AND progressed_at < now() - interval '{STALL_S - 10} s'
"""


async def look(setting: Setting, model: Model, *, excused: Collection[str]) -> None:
    """The model against the database, then the invariants that every fault test uses."""
    model.learn(await _seen(setting))
    seen = await invariants.snapshot_over(setting.sql)
    await invariants.check(setting.world, seen, excused=excused, lost=_lost(setting, model))
    _files(setting, model)
    await _limits(setting, model)


async def _seen(setting: Setting) -> Seen:
    events = await setting.rows(EVENTS)
    return Seen(
        items=await setting.rows(ITEMS),
        requests=await setting.rows(REQUESTS),
        requesters=await setting.rows(REQUESTERS),
        ready=[event for event in events if event["kind"] == "audio.ready"],
        failures=await setting.rows(FAILURES),
        told=Counter((event["kind"], event["request_id"]) for event in events),
        rejected=sum(event["kind"] == "request.rejected" for event in events),
    )


def _lost(setting: Setting, model: Model) -> set[str]:
    """Tracks that had arrived and whose file somebody has deleted since."""
    done = {item.track for item in model.items.values() if item.stage is Stage.COMPLETED}
    return done - model.files


def _files(setting: Setting, model: Model) -> None:
    """I3: the names are those of the model, and each is its own track's song, to the last byte."""
    files = setting.world.files()
    assert files.keys() == model.files | model.strange
    for track, path in files.items():
        song = setting.songs[track]
        assert _digest(path.read_bytes()) == _digest(song.read_bytes()), f"I3: {path}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _limits(setting: Setting, model: Model) -> None:
    """I7: what a user is told of their limits is what the model counts."""
    for user in ("ann", "bob"):
        answer = await setting.copies[0].api.get("/v1/download/limits", headers=headers(user))
        shown = answer.json()
        told = (shown["requests_today"], shown["in_queue"])
        assert told == (model.today(user), len(model.waiting(user))), f"I7: {user}"


# --- when all work is over


async def everything(setting: Setting) -> str:
    """All that can still move, to see when nothing does."""
    rows = await setting.rows(
        "SELECT id, stage, attempt, retry_count FROM queue_items ORDER BY id"
    ) + await setting.rows("SELECT id, state FROM tickets ORDER BY id")
    live = [(ticket["id"], ticket["state"]["type"]) for ticket in setting.world.live_tickets()]
    return json.dumps([rows, live])


async def waits_for_a_person(setting: Setting) -> None:
    """I1: what has not ended says by name that a person has to choose, and among what."""
    seen = await setting.rows(_WAITING)
    for row in seen:
        assert row["stage"] == Stage.NEEDS_APPROVAL, f"I1: waits for nobody: {row}"
        assert row["candidates"], f"I1: nothing to choose from: {row}"


_WAITING = """
SELECT q.id, q.stage, q.reason, t.state, t.candidates, t.remote_state
  FROM queue_items q LEFT JOIN tickets t ON t.id = q.ticket_id WHERE q.completed_at IS NULL
"""


async def finished(setting: Setting, model: Model) -> None:
    """Everything has ended, everybody was told, nothing is left behind."""
    active = [item for item in model.items.values() if item.active]
    assert active == [], "I1: work is not over"
    reasons = await setting.rows(
        "SELECT id FROM queue_items WHERE status = 'FAILED'"
        " AND (error_type IS NULL OR error_message IS NULL)"
    )
    assert reasons == [], "I1: FAILED without a reason"
    await invariants.nothing_left(setting.world, folders_stay=False)
    events = await setting.rows("SELECT id FROM events")
    assert setting.wire.stored.keys() == {str(row["id"]) for row in events}, "I4: on the wire"
