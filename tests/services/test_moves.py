"""The moves of items: what the database refuses, and every move over a set of items."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from shared.backoff import RetryPolicy
from shared.db import download_moves, moves
from shared.db.claims import Claim
from shared.db.download_moves import Intent
from shared.db.moves import Joining, Releasing, Start
from shared.db.pool import Connection, Database
from shared.errors import AttemptFailed, ErrorType, Stale
from shared.states import (
    CLAIMED_FROM,
    LEASED,
    RELEASABLE,
    STATUS_OF,
    TERMINAL,
    TRANSITIONS,
    DownloadState,
    ScanState,
    ServerRequestState,
    Stage,
    allowed_from,
    edges,
)
from tests.support.stages import BY_TEST, bare_world, put_at, queue
from tests.support.world import World, track_id

POLICY = RetryPolicy(max_retries=2, initial_s=1, multiplier=2, max_s=10, rng=random.Random(1))
FAILURE = AttemptFailed(ErrorType.STORAGE, "it broke")
TICKET = "a-ticket"
REFUSED = pytest.raises(asyncpg.CheckViolationError, match="not in the transition table")


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """The database is all that these tests need."""
    with bare_world(tmp_path, database_url) as made:
        yield made


async def three(world: World) -> list[str]:
    """Three items, and a ticket that may serve them."""
    await queue(world, [track_id(n) for n in range(1, 4)])
    await world.execute(
        "INSERT INTO tickets (id, dest_path, torrentino_id, state, priority)"
        " VALUES ($1, $1, $1, 'open', 1)",
        TICKET,
    )
    return [item["id"] for item in await world.items()]


async def stages(world: World) -> list[str]:
    """The stages of the items, in the order of the queue."""
    return [item["stage"] for item in await world.items()]


async def test_the_database_has_the_transition_tables_of_the_code(world: World) -> None:
    """A migration that was forgotten after a change of shared/states.py is found."""
    rows = await world.rows("SELECT life, from_state, to_state FROM transitions ORDER BY 1, 2, 3")
    assert [tuple(row.values()) for row in rows] == edges()


@pytest.mark.parametrize("stage", list(Stage))
async def test_an_item_leaves_a_stage_by_its_edges_only(world: World, stage: Stage) -> None:
    """Every other edge is refused by the database for every writer; the status follows."""
    item_id = (await three(world))[0]
    connection = await asyncpg.connect(world.database_url)
    move = """
        UPDATE queue_items SET stage = $2, ticket_id = $3, completed_at = CASE WHEN $4 THEN 1 END,
               lease_until = CASE WHEN $5 THEN now() END WHERE id = $1 RETURNING status
    """
    try:
        for target in set(Stage) - {stage}:
            await put_at(world, item_id, stage, ticket_id=TICKET)
            args = (item_id, target, TICKET, target in TERMINAL, target in LEASED)
            if target in TRANSITIONS[stage]:
                assert await connection.fetchval(move, *args) == STATUS_OF[target]
            else:
                with REFUSED:
                    await connection.execute(move, *args)
    finally:
        await connection.close()


@pytest.mark.parametrize("state", list(DownloadState))
async def test_a_download_leaves_a_state_by_its_edges_only(
    world: World, state: DownloadState
) -> None:
    """As items do."""
    await three(world)
    connection = await asyncpg.connect(world.database_url)
    try:
        for target in set(DownloadState) - {state}:
            await world.execute("UPDATE tickets SET state = $1", state)
            if state in allowed_from(target):
                await connection.execute("UPDATE tickets SET state = $1", target)
            else:
                with REFUSED:
                    await connection.execute("UPDATE tickets SET state = $1", target)
    finally:
        await connection.close()


@pytest.mark.parametrize("state", list(ScanState))
async def test_a_scan_leaves_a_state_by_its_edges_only(world: World, state: ScanState) -> None:
    """As items do."""
    await world.execute(
        "INSERT INTO scans (id, queue, scope, max_items) VALUES ('s', true, '{}', 1)"
    )
    connection = await asyncpg.connect(world.database_url)
    try:
        for target in set(ScanState) - {state}:
            await world.execute("UPDATE scans SET state = $1", state)
            if state in allowed_from(target):
                await connection.execute("UPDATE scans SET state = $1", target)
            else:
                with REFUSED:
                    await connection.execute("UPDATE scans SET state = $1", target)
    finally:
        await connection.close()


@pytest.mark.parametrize("state", list(ServerRequestState))
async def test_a_servers_request_leaves_a_state_by_its_edges_only(
    world: World, state: ServerRequestState
) -> None:
    """As items do."""
    await world.execute(
        "INSERT INTO bridge_requests (remote_id, request_id, kind, content_id, priority)"
        " VALUES ('r', 'r', 'album', 'a', 2)"
    )
    ends = "how = CASE WHEN $1 = 'ended' THEN 'left' END,"
    ends += " ended_at = CASE WHEN $1 = 'ended' THEN now() END"
    change = f"UPDATE bridge_requests SET state = $1, {ends}"
    connection = await asyncpg.connect(world.database_url)
    try:
        for target in set(ServerRequestState) - {state}:
            await world.execute(change, state)
            if state in allowed_from(target):
                await connection.execute(change, target)
            else:
                with REFUSED:
                    await connection.execute(change, target)
    finally:
        await connection.close()


async def test_a_status_cannot_contradict_its_stage(world: World) -> None:
    """The database derives it; a stage that it does not know is refused."""
    item_id = (await three(world))[0]
    connection = await asyncpg.connect(world.database_url)
    try:
        await connection.execute("UPDATE queue_items SET status = 'FAILED' WHERE id = $1", item_id)
        assert (await world.items())[0]["status"] == "PENDING"
        with pytest.raises(asyncpg.CheckViolationError, match="there is no stage"):
            await connection.execute("UPDATE queue_items SET stage = 'lost' WHERE id = $1", item_id)
    finally:
        await connection.close()


async def test_a_worker_of_the_release_before_may_still_write_held(world: World) -> None:
    """During an upgrade the old name of `needs_choice` is stored as the new one."""
    item_id = (await three(world))[0]
    await put_at(world, item_id, Stage.FETCHING, ticket_id=TICKET)
    connection = await asyncpg.connect(world.database_url)
    try:
        await connection.execute(
            "UPDATE queue_items SET stage = 'held', status = 'DOWNLOADING', lease_until = NULL"
            " WHERE id = $1",
            item_id,
        )
    finally:
        await connection.close()
    assert (await stages(world))[0] == "needs_choice"
    last = await world.rows(
        "SELECT stage FROM events WHERE item_id = $1 ORDER BY seq DESC", item_id
    )
    assert last[0]["stage"] == "needs_choice"


@dataclass(frozen=True, kw_only=True)
class Move:
    """A move over a set: where its items are before and after it."""

    name: str
    before: Stage
    after: Stage
    call: Callable[[Connection, Sequence[Claim]], Awaitable[object]]


def _ids(claims: Sequence[Claim]) -> list[str]:
    return [each.item_id for each in claims]


async def _requeue(connection: Connection, claims: Sequence[Claim]) -> object:
    return await moves.requeue(connection, {TICKET: "again"}, actor="poller", detour=True)


async def _release(connection: Connection, claims: Sequence[Claim]) -> object:
    files = [
        Releasing(item_id=each, file_id="f", ticket_id=TICKET, reason="r") for each in _ids(claims)
    ]
    return await moves.release(connection, files, actor="ingest")


def _hand_back(target: Stage) -> Callable[[Connection, Sequence[Claim]], Awaitable[object]]:
    return lambda connection, claims: moves.hand_back(
        connection, claims, target, delay_s=1, reason="r", actor="x"
    )


MOVES = [
    Move(
        name="claim_to_ticket",
        before=Stage.RETRY_WAIT,
        after=Stage.TICKETING,
        call=lambda c, items: moves.claim_to_ticket(
            c,
            [Start(item_id=i, ticket_id=TICKET, resumed=False, reason="r") for i in _ids(items)],
            worker="w",
            lease_s=60,
            actor="ticketer",
        ),
    ),
    Move(
        name="join_ticket",
        before=Stage.QUEUED,
        after=Stage.SEARCHING,
        call=lambda c, items: moves.join_ticket(
            c,
            [Joining(item_id=i, ticket_id=TICKET, torrentino_id=TICKET) for i in _ids(items)],
            reason="r",
            actor="ticketer",
        ),
    ),
    Move(
        name="start",
        before=Stage.TICKETING,
        after=Stage.SEARCHING,
        call=lambda c, items: moves.start(
            c, items, torrentino_id="t", reason="r", actor="ticketer"
        ),
    ),
    Move(
        name="follow",
        before=Stage.SEARCHING,
        after=Stage.READY,
        call=lambda c, _: moves.follow(c, Stage.READY, {TICKET: "r"}, actor="poller"),
    ),
    Move(name="requeue", before=Stage.PROCESSING, after=Stage.QUEUED, call=_requeue),
    Move(
        name="claim_to_collect",
        before=Stage.READY,
        after=Stage.FETCHING,
        call=lambda c, items: moves.claim_to_collect(
            c, _ids(items), worker="w", lease_s=60, actor="fetcher_writer"
        ),
    ),
    Move(
        name="ask_for_choice",
        before=Stage.FETCHING,
        after=Stage.NEEDS_CHOICE,
        call=lambda c, items: moves.ask_for_choice(
            c,
            [(claim, "which one?", {"candidates": []}) for claim in items],
            actor="fetcher_writer",
        ),
    ),
    Move(
        name="choose",
        before=Stage.NEEDS_CHOICE,
        after=Stage.READY,
        call=lambda c, items: moves.choose(
            c,
            dict.fromkeys(_ids(items), "a.flac"),
            reasons=dict.fromkeys(_ids(items), "r"),
            actor="ingest",
        ),
    ),
    *(
        Move(
            name="release",
            before=stage,
            after=Stage.READY,
            call=_release,
        )
        for stage in sorted(RELEASABLE)
    ),
    *(
        Move(
            name="hand_back",
            before=stage,
            after=target,
            call=_hand_back(target),
        )
        for stage, target in CLAIMED_FROM.items()
    ),
    Move(
        name="try_next_release",
        before=Stage.DOWNLOADING,
        after=Stage.QUEUED,
        call=lambda c, items: moves.try_next_release(
            c,
            items,
            FAILURE,
            why="stalled",
            stages=[Stage.DOWNLOADING],
            max_grabs=5,
            policy=POLICY,
            actor="poller",
        ),
    ),
    Move(
        name="complete",
        before=Stage.CONVERTING,
        after=Stage.COMPLETED,
        call=lambda c, items: moves.complete(
            c, dict.fromkeys(items, 7), reason="r", actor="fetcher_writer"
        ),
    ),
    Move(
        name="fail",
        before=Stage.CONVERTING,
        after=Stage.RETRY_WAIT,
        call=lambda c, items: moves.fail(
            c, items, FAILURE, stages=[Stage.CONVERTING], policy=POLICY, actor="fetcher_writer"
        ),
    ),
    *(
        Move(
            name="cancel",
            before=stage,
            after=Stage.FAILED,
            call=lambda c, items: moves.cancel(
                c, _ids(items), for_all=True, reason="r", actor="ingest"
            ),
        )
        for stage in sorted(set(Stage) - TERMINAL)
    ),
    Move(
        name="retry",
        before=Stage.FAILED,
        after=Stage.QUEUED,
        call=lambda c, items: moves.retry(c, _ids(items), reason="r", actor="ingest"),
    ),
]


def test_every_move_is_tested() -> None:
    """One that is added to moves.sql is added here."""
    apart = {"arrive", "advance", "take_back", "lock_to_fail"}
    assert {move.name for move in MOVES} | apart == set(moves.SQL)


@pytest.mark.parametrize("move", MOVES, ids=[f"{m.name}-{m.before}" for m in MOVES])
async def test_a_move_takes_a_set_and_leaves_what_has_moved_on(world: World, move: Move) -> None:
    """Two of three move, with one row of history each; the third is another worker's by now."""
    item_ids = await three(world)
    claims = [await put_at(world, id_, move.before, ticket_id=TICKET) for id_ in item_ids]
    await put_at(world, item_ids[2], Stage.COMPLETED, ticket_id=TICKET)
    history = "SELECT item_id, stage FROM events WHERE actor <> ALL($1) ORDER BY seq"
    await world.execute("UPDATE tickets SET closed_at = now()")
    before = len(await world.rows(history, [BY_TEST]))
    database = Database(world.database_url)
    try:
        async with database.transaction() as connection:
            await move.call(connection, claims)
    finally:
        await database.close()
    assert await stages(world) == [move.after, move.after, "completed"]
    assert (await world.items())[0]["status"] == STATUS_OF[move.after]
    rows = (await world.rows(history, [BY_TEST]))[before:]
    assert [(row["item_id"], row["stage"]) for row in rows] == [
        (item_id, move.after) for item_id in item_ids[:2]
    ]


async def test_to_advance_without_the_claim_is_stale(world: World) -> None:
    """All that were still held have moved, in a transaction that is then rolled back."""
    item_ids = await three(world)
    claims = [await put_at(world, id_, Stage.FETCHING, ticket_id=TICKET) for id_ in item_ids]
    lost = Claim(item_id=item_ids[2], fence=claims[2].fence - 1)
    database = Database(world.database_url)
    try:
        with pytest.raises(Stale):
            async with database.transaction() as connection:
                await moves.advance(
                    connection, [*claims[:2], lost], Stage.VERIFYING, reason="r", actor="x"
                )
        assert set(await stages(world)) == {"fetching"}
        async with database.transaction() as connection:
            await moves.advance(connection, claims, Stage.VERIFYING, reason="r", actor="x")
    finally:
        await database.close()
    assert set(await stages(world)) == {"verifying"}


async def test_each_item_has_its_own_budget(world: World) -> None:
    """Of items that fail together one may be tried again while another has used up its retries."""
    item_ids = await three(world)
    for item_id in item_ids:
        await put_at(world, item_id, Stage.SEARCHING, ticket_id=TICKET)
    await world.execute("UPDATE queue_items SET retry_count = 2 WHERE id = $1", item_ids[0])
    await world.execute("UPDATE queue_items SET grabs = 4 WHERE id = $1", item_ids[1])
    database = Database(world.database_url)
    try:
        async with database.transaction() as connection:
            ended = await moves.try_next_release(
                connection,
                item_ids,
                FAILURE,
                why="stalled",
                stages=[Stage.SEARCHING],
                max_grabs=5,
                policy=POLICY,
                actor="poller",
            )
        assert [ended[id_] for id_ in item_ids] == ["queued", "retry_wait", "queued"]
        for item_id in item_ids:
            await put_at(world, item_id, Stage.SEARCHING, ticket_id=TICKET)
        async with database.transaction() as connection:
            failed = await moves.fail(
                connection,
                item_ids,
                FAILURE,
                stages=[Stage.SEARCHING],
                policy=POLICY,
                actor="poller",
            )
    finally:
        await database.close()
    assert [failed[id_] for id_ in item_ids] == ["failed", "retry_wait", "retry_wait"]


async def test_a_download_that_no_item_wants_is_withdrawn(world: World) -> None:
    """Only that one, and only by the mode that is named."""
    item_ids = await three(world)
    await put_at(world, item_ids[0], Stage.SEARCHING, ticket_id=TICKET)
    database = Database(world.database_url)
    try:
        async with database.transaction() as connection:
            intent = Intent(id="alone", dest_path="alone", priority=1, kind="track", album_id=None)
            await download_moves.intend(connection, "direct", [intent])
            assert await download_moves.withdraw_unwanted(connection, None, mode="tickets") == 0
            assert await download_moves.withdraw_unwanted(connection, None, mode="direct") == 1
    finally:
        await database.close()
    rows = await world.rows("SELECT id, state FROM tickets ORDER BY id")
    assert [(row["id"], row["state"]) for row in rows] == [
        (TICKET, "open"),
        ("alone", "withdrawing"),
    ]
