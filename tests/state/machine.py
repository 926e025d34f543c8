"""Random requests, withdrawals, retries, fates, faults, held workers and clocks, in any order.

Each rule is one thing that may happen; after each, the model and the invariants I1 to I9 are
compared with the database, the disk and the stand-in. A run ends by letting everything finish.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from shared.bus.subjects import REQUEST_ALBUM, REQUEST_CANCEL, REQUEST_TRACK
from shared.db.scans import start
from shared.errors import Conflict, Unavailable
from shared.events import parse_order
from shared.media.paths import audio_dir
from tests.state import checks, fates
from tests.state.model import Expected, Item, Kind, Model
from tests.state.setting import ALBUMS, POINTS, TRACKS, Copy, Held, Setting, headers, tracks_of

T = TypeVar("T")
Json = dict[str, Any]

V1 = "/v1/download"
# After so many rounds without a change nothing will change any more.
_AT_REST = 4
WORKERS = (
    *("ticketer", "poller", "fetcher"),
    *("strays", "reaper", "leases", "cleaning", "sweep", "watchdog"),
)
# A moment; a poll; a lost answer; a lease; retries; a stall. Back: the clock was set.
JUMPS_S = (1, 6, 16, 61, 300, 11_000, -600)

users = st.sampled_from(["ann", "bob", None])
copies = st.sampled_from([0, 1])
tracks = st.sampled_from(TRACKS)
albums = st.sampled_from(sorted(ALBUMS))
priorities = st.sampled_from([1, 2, 3])
# Few, so that ids come again; which thing a number means depends on how many there are.
keys = st.integers(0, 2)
places = st.integers(0, 4)
held_points = st.sampled_from(
    [(worker, point) for worker in POINTS for point in POINTS[worker] if worker != "ingest"]
)


class Machine(RuleBasedStateMachine):
    """One run; `setting` and `runner` are shared by all runs."""

    setting: Setting
    runner: asyncio.Runner
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.sent: list[tuple[str, Json]] = []
        self.excused: set[str] = set()
        # How far the clock has been set back, in all.
        self.back_s = 0.0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Let this happen, and nothing else."""
        type(self).steps += 1
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.runner.run(self.setting.begin())

    @invariant()
    def holds(self) -> None:
        if self.setting.copies:
            self.runner.run(checks.look(self.setting, self.model, excused=self.excused))

    # --- requests

    @rule(copy=copies, user=users, track=tracks, priority=priorities, key=keys)
    def message_for_a_track(
        self, copy: int, user: str | None, track: str, priority: int, key: int
    ) -> None:
        body = {"v": 1, "request_id": f"t{key}", "user_id": user, "priority": priority}
        self.send(copy, REQUEST_TRACK, body | {"track_id": track})

    @rule(copy=copies, user=users, album=albums, priority=priorities, key=keys)
    def message_for_an_album(
        self, copy: int, user: str | None, album: str, priority: int, key: int
    ) -> None:
        body = {"v": 1, "request_id": f"a{key}", "user_id": user, "priority": priority}
        self.send(copy, REQUEST_ALBUM, body | {"album_id": album})

    @rule(copy=copies, user=users, key=keys, of=st.sampled_from("ta"))
    def message_that_cancels(self, copy: int, user: str | None, key: int, of: str) -> None:
        body = {"v": 1, "request_id": f"{of}{key}", "user_id": user}
        self.send(copy, REQUEST_CANCEL, body)

    @precondition(lambda self: bool(self.sent))
    @rule(copy=copies, place=places)
    def message_comes_again(self, copy: int, place: int) -> None:
        """JetStream delivers it twice, or late, or in another order."""
        if self.sent:
            self.send(copy, *self.sent[place % len(self.sent)])

    def send(self, copy: int, subject: str, body: Json) -> None:
        self.sent.append((subject, body))
        handling = self.setting.copies[copy].handle(subject, json.dumps(body).encode())
        expected = self.expect(subject, body)
        self.do(_awaited(handling))
        if expected is not None:
            self.model.refused += expected.outcome == "refused"

    def expect(self, subject: str, body: Json) -> Expected | None:
        """Tell the model of a message."""
        if subject == REQUEST_CANCEL:
            self.model.withdraw_request(body["request_id"], body["user_id"])
            return None
        kind: Kind = "track" if subject == REQUEST_TRACK else "album"
        content = body[f"{kind}_id"]
        return self.model.request(
            [content] if kind == "track" else tracks_of(content),
            request_id=body["request_id"],
            user=body["user_id"],
            limited=body["user_id"] is not None,
            kind=kind,
            content=content,
            priority=body["priority"],
        )

    @rule(copy=copies, user=users, track=tracks, held=st.booleans())
    def call_for_a_track(self, copy: int, user: str | None, track: str, held: bool) -> None:
        self.call(copy, user, "track", track, [track], held=held)

    @rule(copy=copies, user=users, album=albums, held=st.booleans())
    def call_for_an_album(self, copy: int, user: str | None, album: str, held: bool) -> None:
        self.call(copy, user, "album", album, tracks_of(album), held=held)

    def call(
        self,
        copy: int,
        user: str | None,
        kind: Kind,
        content: str,
        wanted: list[str],
        *,
        held: bool,
    ) -> None:
        """Ask over HTTP; `held`: the decision falls later than the look at disk and ledger."""

        # What is held at the look at the disk has passed what is checked before it.
        passed = False

        def decide() -> Callable[[httpx.Response], None]:
            expected = self.model.request(
                wanted,
                request_id=None,
                user=user or "admin",
                limited=user is not None,
                kind=kind,
                content=content,
                priority=2,
                passed=passed,
            )
            return lambda answer: _answered(kind, expected, answer)

        at = self.setting.copies[copy]
        calling = at.api.post(f"{V1}/{kind}/{content}", headers=headers(user))
        if held and at.held is None:
            self.do(self.hold(at, "ingest", "after looking", calling, decide))
            passed = True
        else:
            check = decide()
            check(self.do(calling))

    @precondition(lambda self: bool(self.model.items))
    @rule(copy=copies, user=users, place=places)
    def withdraw_from_an_item(self, copy: int, user: str | None, place: int) -> None:
        item = self.item(place)
        if item is not None:
            api = self.setting.copies[copy].api
            status = self.model.withdraw_item(item, user)
            answer = self.do(api.delete(f"{V1}/items/{item.id}", headers=headers(user)))
            assert answer.status_code == status, answer.text

    @precondition(lambda self: bool(self.model.items))
    @rule(copy=copies, user=users, place=places)
    def retry_an_item(self, copy: int, user: str | None, place: int) -> None:
        failed = [item for item in self.model.items.values() if item.stage == "failed"]
        item = failed[place % len(failed)] if failed else self.item(place)
        if item is not None:
            api = self.setting.copies[copy].api
            status = self.model.retry(item, user)
            answer = self.do(api.post(f"{V1}/items/{item.id}/retry", headers=headers(user)))
            assert answer.status_code == status, answer.text

    def item(self, place: int) -> Item | None:
        """Any item, the same one for the same run."""
        items = list(self.model.items.values())
        return items[place % len(items)] if items else None

    @rule(copy=copies)
    def scan(self, copy: int) -> None:
        """The administrator has the whole catalog looked through, and queued what is missing."""
        self.do(self.scanned(self.setting.copies[copy]))

    async def scanned(self, copy: Copy) -> None:
        scan_id = str(uuid.uuid4())
        order = parse_order({})
        database = copy.app.database
        try:
            await start(database, order, queue=True, requested_by="admin", scan_id=scan_id)
        except Conflict:
            return
        await copy.step("watchdog")
        self.model.scan(scan_id, TRACKS)

    # --- Torrentino

    @precondition(lambda self: bool(self.setting.world.live_tickets()))
    @rule(place=places, fate=st.sampled_from(fates.FATES))
    def ticket_meets_its_fate(self, place: int, fate: str) -> None:
        self.meet_one(place, fate)

    def meet_one(self, place: int, fate: str) -> None:
        live = self.setting.world.live_tickets()
        if live:
            self.meet(live[place % len(live)], fate)

    @precondition(lambda self: bool(self.setting.world.live_tickets()))
    @rule(place=places)
    def ticket_completes(self, place: int) -> None:
        """The commonest fate, so that runs come far."""
        self.meet_one(place, fates.GOOD)

    @precondition(lambda self: bool(self.cancelled()))
    @rule(place=places, fate=st.sampled_from(["downloading 80", fates.GOOD]))
    def cancelled_ticket_comes_back(self, place: int, fate: str) -> None:
        """A loop of Torrentino overwrites a cancel, which is not durable there."""
        cancelled = self.cancelled()
        ticket = cancelled[place % len(cancelled)]
        # Once we have seen it rest long enough we may have asked for another.
        self.excused.add(str(ticket["id"]))
        self.meet(ticket, fate)

    def cancelled(self) -> list[Json]:
        return [
            dict(ticket)
            for ticket in self.setting.world.standin.tickets()
            if ticket["state"]["type"] == "cancelled"  # type: ignore[index]
        ]

    def meet(self, ticket: Json, fate: str) -> None:
        track = self.track_of(ticket)
        if fates.spoils(fate):
            self.model.spoilt.add(ticket["id"])
        fates.apply(self.setting, ticket, track, fate)

    def track_of(self, ticket: Json) -> str:
        title = ticket["query_context"]["expected"]["title"]
        return TRACKS[int(title.removeprefix("Song ")) - 1]

    @precondition(lambda self: bool(self.model.unfinished))
    @rule(
        fault=st.sampled_from(
            ["database_locked", "database_locked_after_effect", "drop_before", "drop_after"]
        ),
        only=st.sampled_from(["POST /tickets", "DELETE /tickets/{id}"]),
    )
    def next_call_goes_wrong(self, fault: str, only: str) -> None:
        self.setting.calm()
        self.setting.world.faults.update({fault: 1, "only": only})

    @precondition(lambda self: bool(self.model.unfinished))
    @rule(copy=copies, worker=st.sampled_from(WORKERS))
    def outage_of_torrentino(self, copy: int, worker: str) -> None:
        faults = self.setting.world.faults
        faults.down = True
        self.step(copy, worker)
        faults.down = False

    # --- workers

    @rule(copy=copies, worker=st.sampled_from(WORKERS))
    def worker_runs(self, copy: int, worker: str) -> None:
        self.step(copy, worker)

    @rule(copy=copies, jump_s=st.sampled_from([0, 6, 100]))
    def workers_run(self, copy: int, jump_s: int) -> None:
        self.do(self.jumped(jump_s))
        for worker in ("ticketer", "poller", "fetcher"):
            self.step(copy, worker)

    def step(self, copy: int, worker: str) -> None:
        at = self.setting.copies[copy]
        if at.held is None or at.held.worker != worker:
            self.do(unless_held_up(at.step(worker)))

    @precondition(lambda self: bool(self.model.unfinished))
    @rule(copy=copies, what=held_points)
    def worker_is_held(self, copy: int, what: tuple[str, str]) -> None:
        at = self.setting.copies[copy]
        if at.held is None:
            self.worker_is_held_at(at, *what)

    def worker_is_held_at(self, copy: Copy, worker: str, point: str) -> None:
        run = unless_held_up(copy.step(worker))
        self.do(self.hold(copy, worker, point, run, _nothing_to_check))

    @precondition(lambda self: bool(self.model.unfinished))
    @rule(copy=copies, what=held_points, jump_s=st.sampled_from([6, 61, 300]))
    def worker_is_late(self, copy: int, what: tuple[str, str], jump_s: int) -> None:
        """It stands still for so long that its lease is over and another copy does its work."""
        at = self.setting.copies[copy]
        if at.held is not None:
            return
        self.worker_is_held_at(at, *what)
        self.do(self.jumped(jump_s))
        for worker in ("reaper", "ticketer", "poller", "fetcher"):
            self.step(1 - copy, worker)

    async def hold(
        self,
        copy: Copy,
        worker: str,
        point: str,
        work: Coroutine[Any, Any, Any],
        resume: Callable[[], Callable[[Any], None]],
    ) -> None:
        copy.gate.close(point)
        held = Held(worker, asyncio.create_task(work), resume)
        if not await copy.hold(held, point):
            resume()(held.task.result())

    @precondition(lambda self: self.holding())
    @rule(copy=copies)
    def held_worker_goes_on(self, copy: int) -> None:
        if self.setting.copies[copy].held is not None:
            self.do(self.go_on(self.setting.copies[copy]))

    async def go_on(self, copy: Copy) -> None:
        assert copy.held is not None
        held, copy.held = copy.held, None
        check = held.resume()
        copy.gate.open()
        await asyncio.wait([held.task])
        if not held.task.cancelled():
            check(held.task.result())

    @precondition(lambda self: self.holding())
    @rule(copy=copies)
    def held_worker_is_stopped(self, copy: int) -> None:
        at = self.setting.copies[copy]
        if at.held is not None and at.held.worker != "ingest":
            self.do(at.stop_held())

    @rule(copy=copies, trouble=st.sampled_from([None, "lost", "half", "answer lost"]))
    def relay_publishes(self, copy: int, trouble: str | None) -> None:
        self.setting.wire.trouble = trouble
        self.do(unless_held_up(self.setting.copies[copy].relay.run_once()))
        self.setting.wire.trouble = None

    # --- time and disk

    @rule(jump_s=st.sampled_from(JUMPS_S))
    def time_passes(self, jump_s: int) -> None:
        self.do(self.jumped(jump_s))

    async def jumped(self, jump_s: float) -> None:
        await self.setting.jump(jump_s)
        self.back_s += max(0.0, -jump_s)
        for row in await self.setting.rows(checks.STALLED):
            self.model.spoilt.add(row["torrentino_id"])

    @rule()
    def day_ends(self) -> None:
        self.do(self.setting.next_day())
        self.model.next_day()

    @rule(copy=copies, offset_s=st.sampled_from([-86_400.0, 0.0, 3600.0, 86_400.0]))
    def clock_of_a_process_is_set(self, copy: int, offset_s: float) -> None:
        self.setting.copies[copy].clock.offset_s = offset_s

    @rule(track=tracks)
    def stranger_puts_a_file(self, track: str) -> None:
        """A whole file comes into place without us, as from an earlier installation."""
        if self.asking() or track in self.model.files | self.model.strange:
            return
        folder = audio_dir(self.setting.world.media, track)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.setting.songs[track], folder / f"{track}.flac")
        self.model.strange.add(track)

    @precondition(lambda self: bool(self.model.files))
    @rule(track=tracks)
    def file_is_lost(self, track: str) -> None:
        """Somebody deletes a file that was in place."""
        if self.asking() or track not in self.model.files:
            return
        for file in audio_dir(self.setting.world.media, track).glob(f"{track}.*"):
            file.unlink()
        self.model.files.remove(track)

    def holding(self) -> bool:
        return any(copy.held is not None for copy in self.setting.copies)

    def asking(self) -> bool:
        """Whether a request has looked at the disk and not yet decided."""
        return any(copy.held and copy.held.worker == "ingest" for copy in self.setting.copies)

    # --- the end

    def teardown(self) -> None:
        """Let everything finish, unless the run failed before."""
        try:
            if self.setting.copies:
                self.runner.run(self.finish())
        finally:
            self.runner.run(self.setting.end())

    async def finish(self) -> None:
        """With time passing and Torrentino at work all that was asked for ends, and is told."""
        self.setting.calm()
        for copy in self.setting.copies:
            if copy.held is not None:
                await self.go_on(copy)
                await checks.look(self.setting, self.model, excused=self.excused)
        # What the clock's setting back has put off comes due.
        await self.jumped(self.back_s)
        await self.drain(approve=False)
        await checks.waits_for_a_person(self.setting)
        if self.model.unfinished:
            await self.drain(approve=True)
        await checks.finished(self.setting, self.model)

    async def drain(self, *, approve: bool) -> None:
        """Until nothing moves any more."""
        before, still = "", 0
        for turn in range(80):
            self.deliver(approve=approve)
            copy = self.setting.copies[turn % 2]
            for worker in WORKERS:
                await copy.step(worker)
            await copy.relay.run_once()
            await self.jumped(100)
            now = await checks.everything(self.setting)
            # A cancelled ticket has to be seen at rest for a while before anything more happens.
            still = still + 1 if now == before else 0
            if still == 0:
                await checks.look(self.setting, self.model, excused=self.excused)
            elif still == _AT_REST:
                return
            before = now
        raise AssertionError(f"it does not come to rest: {before}")

    def deliver(self, *, approve: bool) -> None:
        for ticket in self.setting.world.live_tickets():
            waits = ticket["state"]["type"] == "needs_approval"
            if approve or not waits:
                self.meet(ticket, fates.GOOD)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


async def unless_held_up(work: Awaitable[object]) -> None:
    """A dependency that is away is for the loop to wait for."""
    try:
        await work
    except Unavailable:
        return


def _nothing_to_check() -> Callable[[Any], None]:
    return lambda _: None


def _answered(kind: Kind, expected: Expected, answer: httpx.Response) -> None:
    """The answer over HTTP says what the model expects."""
    body = answer.json()
    if expected.outcome == "refused":
        assert answer.status_code == 409, body
        assert body["type"].endswith("limit-reached"), body
    elif kind == "album":
        assert answer.status_code == 202, body
        shown = (body["queued"], body["already_queued"], body["already_available"])
        assert shown == tuple(map(len, (expected.queued, expected.joined, expected.available)))
    else:
        assert answer.status_code == (200 if expected.available else 202), body
        assert body["available"] == bool(expected.available)
        assert body["deduplicated"] == bool(expected.joined)
