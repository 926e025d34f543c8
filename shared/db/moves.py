"""The moves of items: every change of a stage, in the order of an item's life.

The SQL is in `moves.sql`. A move takes a set of items and is one statement, with its history rows;
a single item is a set of one. It returns what it has moved: an item that is missing there was moved
by another worker meanwhile, which is expected and logged. Call a move in the transaction of what
belongs to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import structlog

from shared.backoff import RetryPolicy
from shared.catalog.models import Track
from shared.db.album_requests import settle_albums
from shared.db.blocklist import Why, block
from shared.db.claims import Claim
from shared.db.pool import Connection, Row
from shared.db.queries import load_queries
from shared.db.refusals import last_words, told
from shared.db.track_columns import track_columns
from shared.db.turns import NOBODY, places, served
from shared.errors import AttemptFailed, ErrorType, Stale
from shared.remedies import explained
from shared.states import (
    CLAIMED_FROM,
    LEASED,
    RELEASABLE,
    REMOTE,
    TERMINAL,
    WAITING,
    DownloadState,
    Stage,
    allowed_from,
    values,
)

log = structlog.get_logger()

SQL = load_queries(Path(__file__).with_suffix(".sql"))

# How many items whose lease has run out are taken back in one statement.
_MOST_TAKEN_BACK = 500
# After so many downloads the next search may find something else, unless a user asks sooner.
_AFTER_ALL_GRABS_S = 86_400.0
_LONGEST_REASON = 500

# An item that a worker holds, or the id of one that no worker holds.
ItemRef: TypeAlias = Claim | str


@dataclass(frozen=True, kw_only=True)
class Start:
    """An item for which a download is about to be started, under this row of `tickets`.

    `resumed`: an earlier try may have started it already; the attempt is the same.
    """

    item_id: str
    ticket_id: str
    resumed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Joining:
    """An item that joins a ticket which is open already."""

    item_id: str
    ticket_id: str
    torrentino_id: str


@dataclass(frozen=True, kw_only=True)
class Releasing:
    """An item that takes a kept file (of `refused_files`), and the download that brought it."""

    item_id: str
    file_id: str
    ticket_id: str
    reason: str


async def arrive(
    connection: Connection,
    tracks: Sequence[Track],
    item_ids: Sequence[str],
    *,
    priority: int,
    user_id: str | None,
    reason: str,
    actor: str,
    apart: bool = False,
) -> dict[str, str]:
    """Queue these tracks, to be worked on in this order; item ids by track id.

    A track that has an active item is left out. `apart`: each gets a ticket of its own, and so a
    turn.
    """
    seqs = [row["seq"] for row in await connection.fetch(_NEXT_SEQS, len(tracks))]
    rows = await connection.fetch(
        SQL["arrive"],
        Stage.QUEUED,
        priority,
        user_id,
        actor,
        reason,
        list(item_ids),
        [track.id for track in tracks],
        seqs,
        places(tracks, apart=apart),
        apart,
        user_id or NOBODY,
        *track_columns(tracks),
    )
    return {row["track_id"]: row["id"] for row in rows}


_NEXT_SEQS = "SELECT nextval('queue_seq') AS seq FROM generate_series(1, $1)"


async def claim_to_ticket(
    connection: Connection, starts: Sequence[Start], *, worker: str, lease_s: float, actor: str
) -> list[Row]:
    """Claim waiting items, each linked to the download to be started for it.

    Returns a row for each, with its fence and what the catalog said of its track.
    """
    return await connection.fetch(
        SQL["claim_to_ticket"],
        Stage.TICKETING,
        actor,
        worker,
        lease_s,
        [each.item_id for each in starts],
        [each.ticket_id for each in starts],
        [each.resumed for each in starts],
        [each.reason for each in starts],
        allowed_from(Stage.TICKETING),
    )


async def join_ticket(
    connection: Connection, joining: Sequence[Joining], *, reason: str, actor: str
) -> set[str]:
    """Let waiting items be served by tickets that are open; no worker has to hold them."""
    rows = await connection.fetch(
        SQL["join_ticket"],
        Stage.SEARCHING,
        actor,
        reason,
        [each.item_id for each in joining],
        [each.ticket_id for each in joining],
        [each.torrentino_id for each in joining],
        values(WAITING & _from(Stage.SEARCHING)),
    )
    return _ids(rows)


async def start(
    connection: Connection,
    claims: Sequence[Claim],
    *,
    torrentino_id: str | None,
    reason: str,
    actor: str,
) -> set[str]:
    """The download of these items has been started; `torrentino_id`: by this ticket."""
    ids, fences = _arrays(claims)
    rows = await connection.fetch(
        SQL["start"],
        Stage.SEARCHING,
        actor,
        _reason(reason),
        torrentino_id,
        ids,
        fences,
        values(LEASED & _from(Stage.SEARCHING)),
    )
    if rows:
        await served(connection, *min((row["priority"], row["turn"]) for row in rows))
    return _moved(rows, claims, Stage.SEARCHING)


async def follow(
    connection: Connection,
    stage: Stage,
    reasons: Mapping[str, str],
    *,
    actor: str,
    retell: bool = False,
) -> set[str]:
    """Move the items of these downloads (ticket id: reason) where their download is.

    `retell`: items that are there already get the reason, which says more than the stage.
    """
    rows = await connection.fetch(
        SQL["follow"],
        stage,
        actor,
        list(reasons),
        [_reason(each) for each in reasons.values()],
        values(REMOTE & _from(stage)),
        retell,
    )
    return _ids(rows)


async def requeue(
    connection: Connection,
    reasons: Mapping[str, str],
    *,
    actor: str,
    delay_s: float = 0.0,
    detour: bool = False,
    ask_next: str | None = None,
    once: bool = False,
) -> set[str]:
    """Queue the items of these downloads (ticket id: reason) for another one; no attempt failed.

    `detour`: the download led nowhere, through no fault of its items. `ask_next`: the kind of
    ticket that serves them next; `once`: not those that come from that kind, which found nothing.
    """
    rows = await connection.fetch(
        SQL["requeue"],
        Stage.QUEUED,
        actor,
        list(reasons),
        [_reason(each) for each in reasons.values()],
        1 if detour else 0,
        ask_next,
        float(delay_s),
        values(REMOTE & _from(Stage.QUEUED)),
        once,
    )
    return _ids(rows)


async def claim_to_collect(
    connection: Connection, item_ids: Sequence[str], *, worker: str, lease_s: float, actor: str
) -> set[str]:
    """Claim items whose file is ready to be collected."""
    rows = await connection.fetch(
        SQL["claim_to_collect"],
        Stage.FETCHING,
        actor,
        worker,
        lease_s,
        list(item_ids),
        allowed_from(Stage.FETCHING),
    )
    return _ids(rows)


async def advance(
    connection: Connection, claims: Sequence[Claim], stage: Stage, *, reason: str, actor: str
) -> None:
    """Move claimed items to the next stage of the same claim.

    Raises:
        Stale: a claim has been lost.
    """
    ids, fences = _arrays(claims)
    rows = await connection.fetch(
        SQL["advance"], stage, actor, _reason(reason), ids, fences, values(LEASED & _from(stage))
    )
    lost = [each for each in claims if each.item_id not in _moved(rows, claims, stage)]
    if lost:
        raise Stale(f"item {lost[0].item_id} is no longer held by fence {lost[0].fence}")


async def ask_for_choice(
    connection: Connection,
    questions: Sequence[tuple[Claim, str, Mapping[str, object]]],
    *,
    actor: str,
) -> set[str]:
    """Let an administrator say which file each item is: (claim, reason, evidence)."""
    claims = [claim for claim, _, _ in questions]
    ids, fences = _arrays(claims)
    rows = await connection.fetch(
        SQL["ask_for_choice"],
        Stage.NEEDS_CHOICE,
        actor,
        ids,
        fences,
        [_reason(reason) for _, reason, _ in questions],
        [dict(evidence) for _, _, evidence in questions],
        allowed_from(Stage.NEEDS_CHOICE),
    )
    return _moved(rows, claims, Stage.NEEDS_CHOICE)


async def choose(
    connection: Connection, files: Mapping[str, str], *, reasons: Mapping[str, str], actor: str
) -> set[str]:
    """An administrator has said which file each item is (item id: file, and why)."""
    rows = await connection.fetch(
        SQL["choose"],
        Stage.READY,
        actor,
        list(files),
        list(files.values()),
        [_reason(reasons[item_id]) for item_id in files],
        values({Stage.NEEDS_CHOICE}),
    )
    return _ids(rows)


async def release(connection: Connection, releases: Sequence[Releasing], *, actor: str) -> set[str]:
    """Let refused files be collected for these items, if no worker has them."""
    rows = await connection.fetch(
        SQL["release"],
        Stage.READY,
        actor,
        [each.item_id for each in releases],
        [each.file_id for each in releases],
        [each.ticket_id for each in releases],
        [_reason(each.reason) for each in releases],
        values(RELEASABLE),
    )
    return _ids(rows)


async def hand_back(
    connection: Connection,
    claims: Sequence[Claim],
    stage: Stage,
    *,
    delay_s: float,
    reason: str,
    actor: str,
    ask_next: str | None = None,
    counted: bool = False,
) -> set[str]:
    """Give claimed items back unharmed, to be claimed again after `delay_s`; no attempt is used up.

    `ask_next`: the kind of ticket (`track`, `album`) that serves them next. `counted`: what they
    need works, so the cause is unknown, and `hand_backs` says how often that has happened.
    """
    ids, fences = _arrays(claims)
    rows = await connection.fetch(
        SQL["hand_back"],
        stage,
        actor,
        _reason(reason),
        ask_next,
        float(delay_s),
        ids,
        fences,
        values(LEASED & _from(stage)),
        1 if counted else 0,
        Stage.READY,
    )
    return _moved(rows, claims, stage)


async def take_back(connection: Connection, *, actor: str) -> dict[Stage, int]:
    """Free items whose lease has run out; how many, by the stage they were in."""
    freed = {}
    for stage, target in CLAIMED_FROM.items():
        rows = await connection.fetch(SQL["take_back"], target, actor, [stage], _MOST_TAKEN_BACK)
        freed[stage] = len(rows)
    return freed


async def complete(
    connection: Connection, sizes: Mapping[ItemRef, int], *, reason: str, actor: str
) -> list[Row]:
    """Complete items whose file is in place, with its bytes; rows of (id, track_id, album_id)."""
    ids, fences = _arrays(sizes)
    rows: list[Row] = await connection.fetch(
        SQL["complete"],
        Stage.COMPLETED,
        actor,
        reason,
        ids,
        fences,
        list(sizes.values()),
        allowed_from(Stage.COMPLETED),
    )
    return rows


async def fail(
    connection: Connection,
    items: Collection[ItemRef],
    failure: AttemptFailed,
    *,
    stages: Collection[Stage],
    policy: RetryPolicy,
    actor: str,
    delay_s: float | None = None,
    barred: bool = False,
    opening: str | None = None,
) -> dict[str, Stage]:
    """End the attempt of these items: each waits for its next one, or fails for good.

    `delay_s`: the wait, where something else than the policy decides it. `barred`: an administrator
    ends it, and only an administrator retries it. `opening`: of the message, where the failure is
    the last of several. Call it in a transaction. Returns the new stage of each; an item that was
    moved on meanwhile is left out.
    """
    locked = await _lock(connection, items, stages, failure.error_type)
    if not locked:
        return {}
    ends = {id_: _end(failure, retried, policy, delay_s) for id_, retried in locked.items()}
    words = await last_words(connection, ends, failure, opening=opening)
    await connection.fetch(
        SQL["fail"],
        actor,
        [words[item_id] for item_id in ends],
        failure.error_type,
        failure.evidence or None,
        Stage.FAILED,
        list(ends),
        [stage for stage, _, _ in ends.values()],
        [retried for _, retried, _ in ends.values()],
        [wait_s for _, _, wait_s in ends.values()],
        values(stages),
        barred,
    )
    for item_id, (stage, _, _) in ends.items():
        log.info(
            "attempt_failed",
            item_id=item_id,
            error_type=failure.error_type,
            message=words[item_id],
            retry_count=locked[item_id],
            stage=stage,
        )
    failed = [item_id for item_id, (stage, _, _) in ends.items() if stage is Stage.FAILED]
    if failed:
        await settle_albums(connection, failed, actor=actor)
    return {item_id: stage for item_id, (stage, _, _) in ends.items()}


async def try_next_release(
    connection: Connection,
    items: Collection[ItemRef],
    failure: AttemptFailed,
    *,
    why: Why,
    stages: Collection[Stage],
    max_grabs: int,
    policy: RetryPolicy,
    actor: str,
) -> dict[str, Stage]:
    """Block the release of the items' download for their tracks, and queue them for the next one.

    After `max_grabs` downloads the attempt is over, with the last one's evidence, and the next
    search is a day later. As `fail` otherwise.
    """
    locked = await _lock(connection, items, stages, failure.error_type)
    if not locked:
        return {}
    await block(
        connection,
        list(locked),
        why=why,
        reason=explained(failure),
        told=told(failure),
        evidence=failure.evidence,
    )
    rows = await connection.fetch(
        SQL["try_next_release"],
        Stage.QUEUED,
        actor,
        _reason(f"takes the next release: {explained(failure)}"),
        list(locked),
        values(frozenset(stages) & _from(Stage.QUEUED)),
        max_grabs,
    )
    moved = _ids(rows)
    ended = await fail(
        connection,
        [each for each in items if (item_id := _id(each)) in locked and item_id not in moved],
        failure,
        stages=stages,
        policy=policy,
        actor=actor,
        delay_s=_AFTER_ALL_GRABS_S,
        opening=f"{max_grabs} downloads did not bring it",
    )
    return dict.fromkeys(moved, Stage.QUEUED) | ended


async def cancel(
    connection: Connection, item_ids: Sequence[str], *, for_all: bool, reason: str, actor: str
) -> list[Row]:
    """End items that no requester waits for (`for_all`: all of them); rows of (id, ticket_id)."""
    rows: list[Row] = await connection.fetch(
        SQL["cancel"],
        Stage.FAILED,
        actor,
        reason,
        ErrorType.CANCELLED,
        list(item_ids),
        for_all,
        allowed_from(Stage.FAILED),
    )
    return rows


async def retry(
    connection: Connection, item_ids: Sequence[str], *, reason: str, actor: str
) -> set[str]:
    """Queue failed items again as if they were new, with their history."""
    rows = await connection.fetch(
        SQL["retry"],
        Stage.QUEUED,
        actor,
        reason,
        DownloadState.CLOSED,
        list(item_ids),
        values(TERMINAL & _from(Stage.QUEUED)),
    )
    return _ids(rows)


async def _lock(
    connection: Connection, items: Collection[ItemRef], stages: Collection[Stage], cause: ErrorType
) -> dict[str, int]:
    """Lock those that are still in these stages and held by their claim; retry counts by id."""
    ids, fences = _arrays(items)
    rows = await connection.fetch(SQL["lock_to_fail"], ids, fences, values(stages))
    locked = {row["id"]: int(row["retry_count"]) for row in rows}
    for item_id in ids:
        if item_id not in locked:
            log.info("stale_failure_dropped", item_id=item_id, cause=cause)
    return {item_id: locked[item_id] for item_id in ids if item_id in locked}


def _end(
    failure: AttemptFailed, retried: int, policy: RetryPolicy, delay_s: float | None
) -> tuple[Stage, int, float]:
    """The stage after this failure, the retries so far, and the wait."""
    if not policy.allows(failure.error_type, retried):
        return Stage.FAILED, retried, 0.0
    wait_s = policy.delay_s(retried) if delay_s is None else delay_s
    return Stage.RETRY_WAIT, retried + 1, wait_s


def _from(stage: Stage) -> frozenset[Stage]:
    return frozenset(Stage(each) for each in allowed_from(stage))


def _id(item: ItemRef) -> str:
    return item if isinstance(item, str) else item.item_id


def _arrays(items: Iterable[ItemRef]) -> tuple[list[str], list[int | None]]:
    held = list(items)
    fences = [None if isinstance(each, str) else each.fence for each in held]
    return [_id(each) for each in held], fences


def _ids(rows: Iterable[Row]) -> set[str]:
    return {row["id"] for row in rows}


def _moved(rows: Iterable[Row], claims: Iterable[Claim], stage: Stage) -> set[str]:
    moved = _ids(rows)
    for claim in claims:
        if claim.item_id not in moved:
            log.info("stale_write_dropped", item_id=claim.item_id, fence=claim.fence, to=stage)
    return moved


def _reason(text: str) -> str:
    return text[:_LONGEST_REASON]
