"""A small model of what the queue promises: who waits for what, who is told, what is counted.

It knows requests, the items they wait for, files, and what was burnt; it knows nothing of leases,
fences, tickets' rows or services. `request`, `withdraw`, … say what must come of a call; `learn`
compares all of it with the database after every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.states import LEASED, REMOTE, STATUS_OF, TERMINAL, Stage
from tests.state.setting import MAX_PER_DAY, MAX_QUEUE

Row = dict[str, Any]
Kind = Literal["track", "album", "scan"]
# An item that failed so is retried for nothing.
_OUR_FAULT = {"connection", "timeout", "storage", "unknown"}
# Where a request finds an item without a worker, and may complete it with a file it found.
_IDLE = {Stage.QUEUED, Stage.RETRY_WAIT}


@dataclass
class Wish:
    """A request; `id` is None until the database has told it."""

    id: str | None
    user: str | None
    kind: Kind
    content: str
    # Its acceptance was told, once.
    accepted: bool = False
    charged: bool = False
    today: bool = True
    # Of an album: no requester waits for its end any more, and how often its end was published.
    settled: bool = False
    told: int = 0


@dataclass
class Item:
    """One track's way into the library."""

    id: str
    track: str
    priority: int
    stage: Stage = Stage.QUEUED
    # By request: still waited for (True), or withdrawn.
    waits: dict[str, bool] = field(default_factory=dict)
    # It must be FAILED at the next check: every requester has withdrawn.
    ended: bool = False
    retried: int = 0
    # Why it failed, and that an administrator has ended it.
    error: str | None = None
    barred: bool = False

    @property
    def active(self) -> bool:
        return self.stage not in TERMINAL


@dataclass(frozen=True)
class Expected:
    """What a request must be answered."""

    outcome: Literal["accepted", "repeated", "refused"]
    queued: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
    available: frozenset[str] = frozenset()


@dataclass
class _New:
    """An item that the database must have after this step."""

    wish: Wish
    priority: int
    completed: bool


class Model:
    """The whole of it."""

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        self.items: dict[str, Item] = {}
        # Tracks with a file in place that the ledger knows, and with one that it lacks.
        self.files: set[str] = set()
        self.strange: set[str] = set()
        # Torrentino's ids of tickets for which an attempt may be burnt.
        self.spoilt: set[str] = set()
        self.refused = 0
        self._new: dict[str, _New] = {}

    # --- what is asked

    def active(self, track: str) -> Item | None:
        """The track's item that is under way."""
        found = [item for item in self.items.values() if item.track == track and item.active]
        assert len(found) <= 1, f"two active items of {track}"
        return found[0] if found else None

    @property
    def unfinished(self) -> list[Item]:
        """The items that are under way."""
        return [item for item in self.items.values() if item.active]

    def wish(self, request_id: str) -> Wish | None:
        return next((wish for wish in self.wishes if wish.id == request_id), None)

    def waiting(self, user: str | None) -> list[Item]:
        """The active items that this user waits for."""
        return [item for item in self.items.values() if item.active and self._waits(item, user)]

    def _waits(self, item: Item, user: str | None) -> bool:
        return any(still and self._user(id_) == user for id_, still in item.waits.items())

    def asked(self, item: Item, user: str | None) -> bool:
        """Whether this user has ever asked for it."""
        return any(self._user(request_id) == user for request_id in item.waits)

    def _user(self, request_id: str) -> str | None:
        wish = self.wish(request_id)
        assert wish is not None
        return wish.user

    def today(self, user: str) -> int:
        """How many of this user's requests count against today's limit."""
        return sum(wish.charged and wish.today and wish.user == user for wish in self.wishes)

    # --- what is done

    def request(
        self,
        tracks: Sequence[str],
        *,
        request_id: str | None,
        user: str | None,
        limited: bool,
        kind: Kind,
        content: str,
        priority: int,
        passed: bool = False,
    ) -> Expected:
        """A user asks; what must come of it. `passed`: the limits were checked before."""
        if request_id is not None and self.wish(request_id) is not None:
            return Expected("repeated")
        if limited and not passed and self._is_over(tracks, str(user), kind):
            return Expected("refused")
        active = {track: item for track in tracks if (item := self.active(track))}
        adopted = {t for t in tracks if t in self.strange and self._idle(active.get(t))}
        available = {track for track in tracks if track in self.files}
        wanted = [track for track in tracks if track not in available | adopted]
        joined = {track for track in wanted if track in active}
        queued = set(wanted) - joined
        newly = {track for track in joined if not self._waits(active[track], user)}
        if request_id is None and not adopted:
            mine = [active[track] for track in joined]
            if not (queued or newly) and self._repeats(mine, user, kind, content, priority):
                return Expected(
                    "accepted", joined=frozenset(joined), available=frozenset(available)
                )
        charged = bool(queued or newly)
        wish = Wish(request_id, user, kind, content, accepted=True, charged=charged)
        if wish.charged and limited:
            after = len(self.waiting(user)) + len(queued) + len(newly)
            # An item that is adopted leaves the queue in the same transaction.
            after -= sum(self._waits(active[track], user) for track in adopted & active.keys())
            whole = kind == "album" and after == len(wanted)
            if self.today(str(user)) + 1 > MAX_PER_DAY or (after > MAX_QUEUE and not whole):
                return Expected("refused")
        if kind == "album" and not wanted:
            wish.settled, wish.told = True, 1
        self._take(wish, active, queued=queued, joined=joined, adopted=adopted, priority=priority)
        return Expected(
            "accepted", frozenset(queued), frozenset(joined), frozenset(available | adopted)
        )

    def _is_over(self, tracks: Sequence[str], user: str, kind: Kind) -> bool:
        """Whether it is refused before a file is decoded."""
        own = {item.track for item in self.waiting(user)}
        asked = [track for track in tracks if track not in self.files and track not in own]
        if not asked:
            return False
        new = sum(track not in self.strange for track in asked)
        whole = kind == "album" and own <= set(tracks)
        after = len(own) + max(new, 1)
        return self.today(user) >= MAX_PER_DAY or (after > MAX_QUEUE and not whole)

    def _repeats(
        self, mine: Sequence[Item], user: str | None, kind: Kind, content: str, priority: int
    ) -> bool:
        """Whether a user asks over HTTP for what the same user waits for, or was told of today."""
        own = [wish for wish in self.wishes if wish.user == user]
        if not mine:
            same = [wish for wish in own if (wish.kind, wish.content) == (kind, content)]
            return any(wish.today for wish in same)
        if any(item.priority > priority for item in mine):
            return False
        if kind == "album":
            own = [w for w in own if (w.kind, w.content, w.settled) == (kind, content, False)]
        return any(all(item.waits.get(wish.id or "") for item in mine) for wish in own)

    def _idle(self, item: Item | None) -> bool:
        return item is None or item.stage in _IDLE

    def _take(
        self,
        wish: Wish,
        active: dict[str, Item],
        *,
        queued: set[str],
        joined: set[str],
        adopted: set[str],
        priority: int,
    ) -> None:
        self.wishes.append(wish)
        for track in joined:
            active[track].waits[wish.id or ""] = True
            active[track].priority = min(priority, active[track].priority)
        for track in adopted & active.keys():
            active[track].waits[wish.id or ""] = True
        for track in queued | (adopted - active.keys()):
            self._new[track] = _New(wish, priority, completed=track in adopted)
        self.strange -= adopted
        self.files |= adopted

    def scan(self, scan_id: str, tracks: Sequence[str]) -> set[str]:
        """A scan queues what has no file and is not under way; the tracks it queues."""
        missing = {t for t in tracks if t not in self.files | self.strange and not self.active(t)}
        if missing:
            wish = Wish(scan_id, None, "scan", "all", charged=True, settled=True)
            self.wishes.append(wish)
            self._new |= {track: _New(wish, 3, completed=False) for track in missing}
        return missing

    def withdraw_request(self, request_id: str, user: str | None) -> None:
        """A user takes a request back; None is the catalog server, which may take back any."""
        wish = self.wish(request_id)
        if wish is None:
            self.wishes.append(Wish(request_id, user, "track", "", settled=True))
            return
        if user is not None and wish.user != user:
            return
        wish.settled = True
        for item in self.items.values():
            if item.waits.get(request_id):
                item.waits[request_id] = False
                item.ended |= item.active and not any(item.waits.values())

    def withdraw_item(self, item: Item, user: str | None) -> int:
        """A user withdraws from one item (None: the administrator); the HTTP status."""
        name = user or "admin"
        asked = self.asked(item, name)
        if not asked and user is not None:
            return 404
        if item.stage is Stage.COMPLETED:
            return 409
        for request_id in item.waits:
            if self._user(request_id) == name:
                item.waits[request_id] = False
        item.barred |= item.active and not asked
        item.ended |= item.active and (not asked or not any(item.waits.values()))
        return 200

    def retry(self, item: Item, user: str | None) -> int:
        """A user wants a FAILED item tried again; the HTTP status."""
        name = user or "admin"
        if not self.asked(item, name) and user is not None:
            return 404
        if item.barred and user is not None:
            return 403
        charged = user is not None and item.error not in _OUR_FAULT
        there = item.track in self.files | self.strange
        if item.stage is not Stage.FAILED or self.active(item.track) or there:
            return 409
        mine = self._waits(item, name) or self.asked(item, name) or not any(item.waits.values())
        if user is not None and (mine or charged) and len(self.waiting(name)) + 1 > MAX_QUEUE:
            return 409
        if charged and self.today(name) >= MAX_PER_DAY:
            return 409
        self._retried(item, name, charged=charged)
        return 202

    def _retried(self, item: Item, user: str, *, charged: bool) -> None:
        item.stage, item.barred = Stage.QUEUED, False
        item.retried += 1
        # By a new request: a withdrawal of the old one may come once more.
        new = not self._waits(item, user)
        new = new and (self.asked(item, user) or not any(item.waits.values()))
        if new or charged:
            self.wishes.append(Wish(None, user, "track", item.track, charged=charged))
        if new:
            item.waits[""] = True
        for wish in self.wishes:
            if wish.kind == "album" and item.waits.get(wish.id or ""):
                wish.settled = False

    def next_day(self) -> None:
        """Yesterday's requests count no more."""
        for wish in self.wishes:
            wish.today = False

    # --- what came of it

    def learn(self, seen: Seen) -> None:
        """Compare with the database, and take over what the workers were free to choose."""
        self._name_wishes(seen)
        self._name_items(seen)
        for row in seen.items:
            self._moved(self.items[row["id"]], row, seen)
        self._settle()
        self._requests(seen)
        self._told(seen)
        self._burnt(seen)

    def _name_wishes(self, seen: Seen) -> None:
        """Requests over HTTP get their ids from the service."""
        known = {wish.id for wish in self.wishes}
        strange = [row for row in seen.requests if row["id"] not in known]
        for wish in [wish for wish in self.wishes if wish.id is None]:
            [row] = strange
            assert (row["user_id"], row["content_id"]) == (wish.user, wish.content)
            wish.id = row["id"]
            strange.remove(row)
            for item in self.items.values():
                if "" in item.waits:
                    item.waits[row["id"]] = item.waits.pop("")
        assert strange == [], "requests that were not made, or that were refused"

    def _name_items(self, seen: Seen) -> None:
        """New items are exactly those that the last call asked for, once each."""
        for row in seen.items:
            if row["id"] in self.items:
                continue
            new = self._new.pop(row["track_id"], None)
            assert new is not None, f"an item without a request, or a second one: {row}"
            item = Item(row["id"], row["track_id"], new.priority)
            item.waits[new.wish.id or ""] = True
            self.items[item.id] = item
            assert not new.completed or row["stage"] == Stage.COMPLETED, "not adopted"
        assert self._new == {}, "items that should have been queued"
        assert len(seen.items) == len(self.items), "an item is gone"

    def _moved(self, item: Item, row: Row, seen: Seen) -> None:
        stage = Stage(row["stage"])
        assert row["status"] == STATUS_OF[stage]
        assert row["priority"] == item.priority, f"priority of {row}"
        if not item.active:
            assert stage is item.stage, f"I5: {item.stage} became {stage}: {row}"
        if item.ended:
            assert stage is Stage.FAILED, f"withdrawn by all, but {stage}"
            assert row["error_type"] == "cancelled"
            item.ended = False
        if item.active and stage is Stage.COMPLETED:
            self._arrived(item, seen)
        if stage in REMOTE | LEASED:
            assert item.track not in self.files, f"worked on, and in place: {row}"
        item.stage, item.error = stage, row["error_type"]

    def _arrived(self, item: Item, seen: Seen) -> None:
        """Who is told that the file is there are those who wait for it now, and no others."""
        self.files.add(item.track)
        self.strange.discard(item.track)
        [told] = [event["data"] for event in seen.ready if event["item_id"] == item.id]
        waiting = {request_id for request_id, still in item.waits.items() if still}
        assert set(told["request_ids"]) == waiting, "told others than those who wait"
        users = {self._user(request_id) for request_id in waiting} - {None}
        assert set(told["user_ids"]) == users
        assert told["track_id"] == item.track

    def _settle(self) -> None:
        for wish in self.wishes:
            if wish.kind != "album" or wish.settled:
                continue
            mine = [item for item in self.items.values() if item.waits.get(wish.id or "")]
            if not any(item.active for item in mine):
                wish.settled = True
                wish.told += bool(mine)

    def _requests(self, seen: Seen) -> None:
        charged = {row["id"]: row["charged"] for row in seen.requests}
        assert charged == {wish.id: wish.charged for wish in self.wishes}, "charged"
        waits = {(row["item_id"], row["request_id"]): row["waits"] for row in seen.requesters}
        mine = {
            (item.id, request_id): still
            for item in self.items.values()
            for request_id, still in item.waits.items()
        }
        assert waits == mine, "who waits for what"

    def _told(self, seen: Seen) -> None:
        for wish in self.wishes:
            told = seen.told["album.completed", wish.id]
            assert told == wish.told, f"told {told} times of {wish}"
            assert seen.told["request.accepted", wish.id] == wish.accepted, wish
        assert seen.rejected == self.refused, "refusals over NATS are told, once each"

    def _burnt(self, seen: Seen) -> None:
        """I9: an attempt ends only for a cause that Torrentino gave, and once for one ticket."""
        # What our own downloads may burn `direct` knows.
        burnt = Counter(row["torrentino_id"] for row in seen.failures if row["way"] != "direct")
        unexplained = burnt.keys() - self.spoilt
        assert not unexplained, f"burnt without a cause: {seen.failures}"
        assert all(count == 1 for count in burnt.values()), f"burnt twice: {burnt}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The database after a step."""

    items: list[Row]
    requests: list[Row]
    requesters: list[Row]
    ready: list[Row]
    failures: list[Row]
    told: Counter[tuple[str, str | None]]
    rejected: int


ITEMS = "SELECT id, track_id, stage, status, priority, error_type FROM queue_items ORDER BY seq"
REQUESTS = "SELECT id, user_id, content_id, charged FROM requests"
REQUESTERS = "SELECT item_id, request_id, withdrawn_at IS NULL AS waits FROM item_requesters"
EVENTS = "SELECT kind, item_id, request_id, data FROM events WHERE kind <> 'item'"
# What a worker gave up, and the ticket that it was about.
FAILURES = """
SELECT e.item_id, e.stage, e.error_type, e.reason, t.torrentino_id, t.way
  FROM events e LEFT JOIN tickets t ON t.id = e.data ->> 'ticket'
 WHERE e.kind = 'item' AND e.stage IN ('retry_wait', 'failed') AND e.actor <> 'ingest'
"""
