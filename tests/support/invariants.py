"""What holds at every moment, whatever fails, and what holds when all work is over: I1 to I9.

`check_always` may be asked at any instant, also right after a kill; `check_the_end` when all work
is over; `watching` looks at files and tickets all the while. Every fault test uses these.

    I1  every active item has a next action, and a service or an administrator that starts it
    I2  at most one live ticket per track
    I3  a name under audio/ is whole and verified; at most one file per track, of those that the
        ledger has, that the catalog names, and that have the track's own name
    I4  COMPLETED implies file, ledger row and one audio.ready (on the wire once by id)
    I5  terminal is final: nothing leaves COMPLETED, only a retry leaves FAILED
    I6  the history is gapless and lawful; replaying it gives the row
    I7  a user's counts, as the limits count them, equal the rows
    I8  no temporary file, lease, open ticket or folder outlives its item by more than the sweep
    I9  an outage burns no attempt
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg

from services.ingest.store.requests import usage
from services.reaper.clock_watch import ClockWatch
from services.reaper.service import Reaper, RefusedBounds
from services.reaper.store import Store
from shared.announcer import Announcer
from shared.bus.nats import Bus
from shared.clock import SystemClock
from shared.db.media_root import MediaRoot
from shared.db.pool import Database
from shared.db.releases import LADDER_DAYS
from shared.health import Health
from shared.media.paths import find_audio
from shared.media.presence import NamedFile, named_file
from shared.media.tools import find_tools
from shared.media.verify import verify
from shared.states import LEASED, REMOTE, TRANSITIONS, Stage
from tests.support.world import Row, World, eventually

T = TypeVar("T")

_LOOK_S = 0.05
_DAY_S = 86_400
# Further in the future than this a due time is no waker, but a mistake: RETRY_MAX_S is a day, and
# what no search has found waits for as long as the ladder says.
_HORIZON_S = (max(LADDER_DAYS) + 1) * _DAY_S
_PENDING = {Stage.QUEUED, Stage.RETRY_WAIT}


# --- what is looked at


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The database at one instant."""

    items: list[Row]
    tickets: dict[str, Row]
    moves: list[Row]
    ready: list[Row]
    ledger: list[Row]
    albums: list[Row]
    # Tracks whose other file is reported.
    reported: set[str]
    # By user: (requests today, in the queue), as the limits count them, and by the rows.
    usage: dict[str, tuple[int, int]]
    counted: dict[str, tuple[int, int]]

    @property
    def active(self) -> list[Row]:
        """The items that are neither COMPLETED nor FAILED."""
        return [item for item in self.items if item["status"] in ("PENDING", "DOWNLOADING")]

    def ticket_of(self, item: Row) -> Row | None:
        """The ticket that the item is linked to."""
        return self.tickets.get(item["ticket_id"] or "")


_ITEMS = """
SELECT id, track_id, stage, status, attempt, retry_count, ticket_id, lease_until, error_message,
       duration_ms, reason, error_evidence, extract(epoch FROM due_at - now()) AS due_in_s
  FROM queue_items ORDER BY seq
"""

_TICKETS = """
SELECT id, dest_path, torrentino_id, state, kind, way,
       extract(epoch FROM next_poll_at - now()) AS poll_in_s FROM tickets
"""

_MOVES = """
SELECT item_id, from_stage, stage, status, attempt, retry_count FROM events
 WHERE kind = 'item' ORDER BY seq
"""

_READY = "SELECT id, item_id FROM events WHERE kind = 'audio.ready'"

_LEDGER = "SELECT track_id, audio_uri, size_bytes, sha256 FROM media_files"

_REPORTED = "SELECT track_id FROM presence_problems WHERE kind IN ('broken', 'second')"

_ALBUMS = """
SELECT r.id, r.settled_at, i.item_id
  FROM requests r JOIN item_requesters i ON i.request_id = r.id WHERE r.kind = 'album'
"""

_TODAY = """
SELECT user_id, count(*) AS n FROM requests
 WHERE charged AND user_id IS NOT NULL
   AND (created_at AT TIME ZONE 'UTC')::date = (now() AT TIME ZONE 'UTC')::date
 GROUP BY user_id
"""

_WAITING = """
SELECT DISTINCT r.user_id, q.id
  FROM item_requesters r, queue_items q
 WHERE q.id = r.item_id AND r.withdrawn_at IS NULL AND q.completed_at IS NULL
   AND r.user_id IS NOT NULL
"""

_USERS = "SELECT DISTINCT user_id FROM requests WHERE user_id IS NOT NULL"


async def snapshot(world: World) -> Snapshot:
    """Everything that the invariants look at, of one instant."""
    return await world.over(snapshot_over)


async def snapshot_over(connection: asyncpg.Connection[asyncpg.Record]) -> Snapshot:
    """The same over a connection that is there already."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):

        async def rows(sql: str) -> list[Row]:
            return [dict(row) for row in await connection.fetch(sql)]

        users = [row["user_id"] for row in await rows(_USERS)]
        today = {row["user_id"]: row["n"] for row in await rows(_TODAY)}
        waiting = Counter(row["user_id"] for row in await rows(_WAITING))
        return Snapshot(
            items=await rows(_ITEMS),
            tickets={row["id"]: row for row in await rows(_TICKETS)},
            moves=await rows(_MOVES),
            ready=await rows(_READY),
            ledger=await rows(_LEDGER),
            albums=await rows(_ALBUMS),
            reported={row["track_id"] for row in await rows(_REPORTED)},
            usage={user: await _usage(connection, user) for user in users},
            counted={user: (today.get(user, 0), waiting[user]) for user in users},
        )


async def _usage(connection: asyncpg.Connection[asyncpg.Record], user: str) -> tuple[int, int]:
    used = await usage(connection, user)  # type: ignore[arg-type]
    return used.requests_today, used.in_queue


# --- at any instant


async def check_always(world: World) -> None:
    """What holds at any instant; needs PostgreSQL only."""
    await check(world, await snapshot(world))


async def check(
    world: World, seen: Snapshot, *, excused: Collection[str] = (), lost: Collection[str] = ()
) -> None:
    """What holds of this instant.

    `excused` are Torrentino's ids of tickets that it brought back to life by itself, `lost` tracks
    whose file a test has deleted.
    """
    for item in seen.active:
        assert (why := without_next_action(seen, item)) is None, f"I1: {why}: {item}"
    _one_open_ticket_per_track(seen)
    assert (two := _live(world, excused)) == [], two
    await asyncio.to_thread(_one_file_per_track, world, seen)
    await _files_are_whole(world, seen)
    await _completed_is_complete(world, seen, lost)
    _terminal_is_final(seen)
    _history_gives_the_rows(seen)
    assert seen.usage == seen.counted, "I7: what limits count is not what the rows say"


def without_next_action(seen: Snapshot, item: Row) -> str | None:
    """I1: why nothing will ever move this item on; None when something will.

    A due time is the ticketer's or fetcher-writer's waker, a lease the reaper's, an open ticket's
    `next_poll_at` the poller's, a withdrawn ticket's too, for the item that waits behind it. Beside
    an open ticket of its album an item waits to join it again, beside an open download for its end.
    """
    stage, ticket = Stage(item["stage"]), seen.ticket_of(item)
    state = ticket["state"] if ticket else None
    at_torrentino = stage in REMOTE
    rules = {
        "due too late to call it a waker": item["due_in_s"] > _HORIZON_S,
        "held without a lease": stage in LEASED and item["lease_until"] is None,
        "at Torrentino without an open ticket": at_torrentino and state != "open",
        "its ticket is never looked at": bool(
            at_torrentino and ticket and ticket["poll_in_s"] > 2 * _DAY_S
        ),
        "waits for a new ticket beside an open one": bool(
            stage in _PENDING
            and ticket
            and state == "open"
            and ticket["kind"] == "track"
            and ticket["way"] == "tickets"
        ),
        "ready without a ticket": stage is Stage.READY and ticket is None,
        "held without a choice": stage is Stage.NEEDS_CHOICE
        and '"candidates"' not in (item["error_evidence"] or ""),
    }
    return next((why for why, broken in rules.items() if broken), None)


def _one_open_ticket_per_track(seen: Snapshot) -> None:
    """I2, on our side: no two tickets that are not closed are linked to one track."""
    open_: dict[str, set[str]] = defaultdict(set)
    for item in seen.items:
        ticket = seen.ticket_of(item)
        if ticket is not None and ticket["state"] != "closed":
            open_[item["track_id"]].add(ticket["id"])
    assert {track: ids for track, ids in open_.items() if len(ids) > 1} == {}, "I2"


def _live(world: World, excused: Collection[str] = ()) -> list[str]:
    """I2, at Torrentino: what it has more than one live ticket for."""
    tickets = [ticket for ticket in world.live_tickets() if ticket["id"] not in excused]
    live = Counter(str(ticket["query_context"]["description"]) for ticket in tickets)
    return [f"I2: {n} live tickets for {what}" for what, n in live.items() if n > 1]


def _one_file_per_track(world: World, seen: Snapshot) -> None:
    """I3: no track has two files, wherever they lie, unless the other one is reported."""
    ledger = {row["track_id"]: str(row["audio_uri"]) for row in seen.ledger}
    named = world.named()
    for track in (ledger.keys() | named.keys()) - seen.reported:
        uris = [each for each in (ledger.get(track), named.get(track)) if each]
        found = (named_file(world.media, uri) for uri in uris)
        files = {each.inode: each.uri for each in found if isinstance(each, NamedFile)}
        for path in find_audio(world.media, track):
            if (inode := _identity(path)) is not None:
                files[inode] = str(path)
        assert len(files) <= 1, f"I3: {track} has several files: {sorted(files.values())}"


async def _files_are_whole(world: World, seen: Snapshot) -> None:
    """I3: each file is at the place of its name, the only one of its track, and whole."""
    lengths = {item["track_id"]: item["duration_ms"] for item in seen.items}
    for track, path in (await asyncio.to_thread(world.files)).items():
        why = await _broken(path, expected_ms=lengths.get(track))
        assert why is None, f"I3: {path} is not whole: {why}"


async def _completed_is_complete(world: World, seen: Snapshot, lost: Collection[str]) -> None:
    """I4: the last COMPLETED item of a track has its file, its ledger row and one audio.ready."""
    done = {item["track_id"]: item["id"] for item in seen.items if item["stage"] == "completed"}
    ledger = {row["track_id"]: row for row in seen.ledger}
    ready = Counter(event["item_id"] for event in seen.ready)
    for track, item_id in done.items():
        assert track in ledger, f"I4: {track} is completed without a ledger row"
        assert ready[item_id] == 1, f"I4: {ready[item_id]} audio.ready of {track}"
        if track in lost:
            continue
        row = ledger[track]
        path = world.media / row["audio_uri"]
        assert path.is_file(), f"I4: {track} is completed without a file"
        assert path.stat().st_size == row["size_bytes"], f"I4: {path}"
        assert await asyncio.to_thread(_digest, path) == row["sha256"], f"I4: {path}"


def _terminal_is_final(seen: Snapshot) -> None:
    """I5: nothing moves a COMPLETED item; a FAILED one goes to `queued`, by a retry, or nowhere."""
    for move in seen.moves:
        assert move["from_stage"] != Stage.COMPLETED, f"I5: {move}"
        if move["from_stage"] == Stage.FAILED:
            assert move["stage"] == Stage.QUEUED, f"I5: {move}"


def _history_gives_the_rows(seen: Snapshot) -> None:
    """I6: every move of an item is in its history, is allowed, and the last one is the row."""
    at: dict[str, Row] = {}
    for move in seen.moves:
        before = at.get(move["item_id"])
        assert move["from_stage"] == (before and before["stage"]), f"I6: a gap before {move}"
        if before is not None:
            assert Stage(move["stage"]) in TRANSITIONS[Stage(before["stage"])], f"I6: {move}"
        at[move["item_id"]] = move
    shown = ("stage", "status", "attempt", "retry_count")
    replayed = {item_id: [move[name] for name in shown] for item_id, move in at.items()}
    rows = {item["id"]: [item[name] for name in shown] for item in seen.items}
    assert replayed == rows, "I6: the history does not give the rows"


# --- when all work is over


async def check_the_end(
    world: World,
    wanted: Collection[str],
    *,
    failed: Collection[str] = (),
    burned: int = 0,
    folders_stay: bool = False,
    adopted: Collection[str] = (),
) -> None:
    """All work is over: what was wanted arrived, the rest failed, and nothing is left behind.

    `adopted` are tracks whose file was there before, and that no item was for.
    `failed` are the tracks whose items may have FAILED, with a reason. `burned` is how many
    attempts may have been used up; none, where a crash or an outage was the only fault. With
    `http` delivery the incoming `folders_stay`. Needs PostgreSQL and NATS.
    """
    await check_always(world)
    seen = await snapshot(world)
    _all_ended(seen, set(wanted), set(failed))
    files = set(world.files())
    assert files == {*wanted, *adopted}, "I3: files without an item that asked for them"
    unrecorded = set(adopted) - {row["track_id"] for row in seen.ledger}
    assert unrecorded == set(), "I4: files without a ledger row"
    _albums_are_settled(seen)
    await _ready_on_the_wire(world, seen)
    _burned(seen, burned)
    await nothing_left(world, folders_stay=folders_stay)


def _all_ended(seen: Snapshot, wanted: set[str], failed: set[str]) -> None:
    """I1, at the end: every item is COMPLETED, or FAILED with a reason where that was expected."""
    assert seen.active == [], "I1: work is not over"
    done = {item["track_id"] for item in seen.items if item["status"] == "COMPLETED"}
    assert done == wanted, f"I1: not {done - wanted}, but {wanted - done}"
    for item in seen.items:
        if item["status"] == "FAILED":
            assert item["track_id"] in failed, f"I1: {item} is FAILED"
            assert item["error_message"], f"I1: {item} is FAILED without a reason"


def _albums_are_settled(seen: Snapshot) -> None:
    """I1, at the end: who asked for an album whose items have ended has been told so."""
    assert [row["id"] for row in seen.albums if row["settled_at"] is None] == [], "I1: albums"


async def _ready_on_the_wire(world: World, seen: Snapshot) -> None:
    """I4, on the wire: every audio.ready is in the stream, once by its event id, and no other."""
    wanted = {str(event["id"]) for event in seen.ready}

    async def ids() -> list[str]:
        return [str(event["body"]["event_id"]) for event in await world.events("audio.ready.*")]

    found = await eventually(ids, lambda found: set(found) >= wanted)
    assert sorted(found) == sorted(wanted), "I4: audio.ready is not once by id on the wire"


def _burned(seen: Snapshot, most: int) -> None:
    """I9: no more attempts were used up than the faults of Torrentino's files account for."""
    burned = {item["track_id"]: item["retry_count"] for item in seen.items if item["retry_count"]}
    assert sum(burned.values()) <= most, f"I9: attempts burned: {burned}"


async def nothing_left(world: World, *, folders_stay: bool) -> None:
    """I8: after the sweep no temporary file, lease, open ticket or incoming folder is left."""
    await eventually(_async(world.live_tickets), lambda live: not live)
    held = "SELECT id, stage FROM queue_items WHERE lease_until IS NOT NULL"
    assert await world.rows(held) == [], "I8"
    open_ = "SELECT id, state FROM tickets WHERE state <> 'closed'"
    await eventually(lambda: world.rows(open_), lambda rows: not rows)
    await eventually(lambda: _swept(world), lambda parts: not parts)
    if not folders_stay:
        await eventually(_async(world.ticket_folders), lambda left: not left)


async def _swept(world: World) -> list[str]:
    """The temporary files that a sweep leaves: of a worker that has not noticed its end yet."""
    await sweep(world)
    return [path.name for path in (world.media / ".incoming").rglob("*.part")]


async def sweep(world: World) -> None:
    """The reaper's sweep, without the age that it waits for."""
    database = Database(world.database_url)
    try:
        bus = Bus(world.nats.url, name="test", health=Health(SystemClock()))
        reaper = Reaper(
            store=Store(database),
            root=MediaRoot(database, world.media),
            announcer=Announcer(bus, asyncio.Event()),
            retention_s=86_400,
            clock_watch=ClockWatch(SystemClock(), lease_s=60),
            lease_s=60,
            refused=RefusedBounds(keep_s=14 * 86_400, keep_bytes=10**9, unrecorded_s=0),
            temp_age_s=0,
        )
        await reaper.sweep()
    finally:
        await database.close()


# --- all the while


class Watch:
    """Looks at files (I3) and tickets (I2) again and again; `broken` says what it saw.

    `also` says what else it sees. `originals`: what the tracks' files must be, to the last byte.
    """

    def __init__(
        self,
        world: World,
        *,
        seconds: float,
        also: Callable[[], list[str]] = list,
        originals: Mapping[str, Path] | None = None,
    ) -> None:
        self._world = world
        self._also = also
        self._originals = originals or {}
        self._expected_ms = int(seconds * 1000)
        self._seen: set[tuple[Path, int]] = set()
        self.looks = 0
        self.broken: list[str] = []

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Look once."""
        self.looks += 1
        self.broken += _live(self._world) + self._also()
        for path in await asyncio.to_thread(self._files):
            # Whatever is wrong with it, it was visible.
            if (why := await _broken(path, expected_ms=self._expected_ms)) is not None:
                self.broken.append(f"I3: {path} is not whole: {why}")
            original = self._originals.get(path.stem)
            if original is not None and await asyncio.to_thread(_differ, path, original):
                self.broken.append(f"I3: {path} is another recording")

    def _files(self) -> list[Path]:
        """The files that appeared since the last look; two of one track are noted."""
        found = self._world.placed()
        self.broken += [
            f"I3: {n} files of {stem}"
            for stem, n in Counter(p.stem for p in found).items()
            if n > 1
        ]
        new = {(p, n) for p in found if (n := _inode(p)) is not None} - self._seen
        self._seen |= new
        return [path for path, _ in new]


@asynccontextmanager
async def watching(
    world: World,
    *,
    seconds: float,
    also: Callable[[], list[str]] = list,
    originals: Mapping[str, Path] | None = None,
) -> AsyncIterator[Watch]:
    """Watch while the block runs; what was seen broken fails the test at its end."""
    watch = Watch(world, seconds=seconds, also=also, originals=originals)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), task.exception()
    await watch.look()
    assert watch.broken == [], watch.broken


# Bytes that were decoded to their end once are whole wherever they turn up again.
_whole: set[tuple[str, int | None]] = set()


async def _broken(path: Path, *, expected_ms: int | None) -> str | None:
    """Why this file is not whole, if it is not and still has its name."""
    try:
        known = (await asyncio.to_thread(_digest, path), expected_ms)
    except FileNotFoundError:
        # A broken one of a stranger, moved aside; that none of our files goes is I4's to check.
        return None
    if known in _whole:
        return None
    try:
        await verify(path, expected_ms=expected_ms, tolerance_s=1, tools=find_tools())
    except Exception as error:  # noqa: BLE001 (the caller fails with it)
        return f"{type(error).__name__}: {error}"
    _whole.add(known)
    return None


def _inode(path: Path) -> int | None:
    found = _identity(path)
    return None if found is None else found[1]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _differ(one: Path, other: Path) -> bool:
    try:
        return _digest(one) != _digest(other)
    except FileNotFoundError:
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _async(look: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    async def looking() -> T:
        return look()

    return looking
