"""The machine for downloads of our own, beside tickets: what is listed, added, lost, and by whom.

Torrents come half-way and halt until a rule lets them come. What goes wrong for an album is noted:
only then may an attempt or a download for it be in vain.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from services.local.torrentino import TorrentSpec
from services.local.torrentino.torrents import ByHand
from shared.acquisition.protocol import ModeName
from shared.bus.subjects import REQUEST_ALBUM
from tests.state import checks
from tests.state.machine import (
    WORKERS,
    Machine,
    albums,
    copies,
    places,
    unless_held_up,
)
from tests.state.model import Row
from tests.state.setting import ALBUMS, DIRECT_POINTS, STALL_S, Setting, name_of
from tests.support.direct import at_client
from tests.support.world import track_id

DIRECT_WORKERS = ("direct", "torrents", "leftovers")
EVERY_WORKER = (*DIRECT_WORKERS, *WORKERS)
# Kinds of releases, by what they are called and how many claim to have them.
_TITLES = {"good": ("[FLAC]", 20), "private": ("[FLAC] [CD]", 30), "wrong": ("[FLAC] [WEB]", 900)}
_AT_REST = 4
# As long as the longest memory of what was not found.
_LONG_S = 31 * 86_400.0
_TURNS = 120
# Of the first search until all of an album has its attempts: searches of a life.
_CALLS = ("POST /search", "POST /torrents/add/url", "GET /torrents")

Listing: TypeAlias = tuple[str, ...]

kinds = st.sampled_from(sorted(_TITLES))
listings = st.sampled_from(
    [
        ("good",),
        ("private",),
        ("good", "private"),
        ("wrong", "good"),
        ("wrong", "private"),
        ("wrong",),
        (),
    ]
)
held_points = st.sampled_from(
    [(worker, point) for worker, points in DIRECT_POINTS.items() for point in points]
)

_OPEN = """
SELECT t.id, t.info_hash, t.state, t.album_id, q.album_id AS of
  FROM tickets t JOIN queue_items q ON q.ticket_id = t.id
 WHERE t.way = 'direct' AND t.state <> 'closed'
"""
_IN_VAIN = """
SELECT q.album_id, q.grabs, q.retry_count, q.reason, q.error_message FROM queue_items q
 WHERE q.grabs > 0 OR q.retry_count > 0 OR EXISTS (
       SELECT 1 FROM events e JOIN tickets t ON t.id = e.data ->> 'ticket'
        WHERE e.item_id = q.id AND e.stage IN ('retry_wait', 'failed') AND e.actor <> 'ingest'
          AND t.way = 'direct')
"""
_BLOCKED = "SELECT info_hash, why, reason FROM blocklist WHERE info_hash IS NOT NULL"
_KNOWN = """
SELECT info_hash, bool_or(brought) AS brought, bool_or(ours) AS ours FROM tickets
 WHERE way = 'direct' AND info_hash IS NOT NULL GROUP BY info_hash
"""
_TAKEN = """
SELECT id, info_hash FROM tickets WHERE state <> 'intent' AND ours AND info_hash = ANY($1)
"""
_SECRETS = """
SELECT id FROM tickets WHERE state = 'closed' AND way = 'direct'
   AND (links IS NOT NULL OR hashes_before IS NOT NULL)
"""
_STALL = """
UPDATE tickets SET progressed_at = now() - make_interval(secs => $2)
 WHERE way = 'direct' AND state = 'open' AND info_hash = $1
"""


class DirectMachine(Machine):
    """One run that begins with direct downloads."""

    def __init__(self) -> None:
        super().__init__()
        # Albums for which something may have been in vain, and torrents of others.
        self.spoilt: set[str] = set()
        self.strangers: set[str] = set()

    @initialize(album=st.none() | albums, which=listings)
    def begin(self, album: str | None = None, which: Listing = ("good",)) -> None:
        """With `album` it is asked for at once, so that runs come far."""
        super().begin()
        self.releases = releases_of(self.setting)
        for each in ALBUMS:
            self.list_(each, ("good",))
        for spec in self.releases.values():
            self.setting.world.faults.fates[_fate(spec)] = "stuck_downloading"
        if album is not None:
            self.indexers_list(album=album, which=which)
            body = {"v": 1, "request_id": "a0", "user_id": "ann", "priority": 2}
            self.send(0, REQUEST_ALBUM, body | {"album_id": album})

    @invariant()
    def holds(self) -> None:
        if not self.setting.copies:
            return
        super().holds()
        self.runner.run(self.check_downloads())

    async def check_downloads(self) -> None:
        """I10 to I13, as far as they hold at any instant."""
        there = at_client(self.setting.world)
        assert self.strangers <= there.keys(), "I10: a stranger's torrent is gone"
        taken = await self.setting.rows(_TAKEN, list(self.strangers))
        assert taken == [], f"I10: a stranger's torrent is taken for ours: {taken}"
        rows = await self.setting.rows(_IN_VAIN)
        unexplained = [row for row in rows if row["album_id"] not in self.spoilt]
        assert unexplained == [], f"I12: in vain without a cause: {unexplained}"
        right = {s.info_hash for (_, kind), s in self.releases.items() if kind != "wrong"}
        for row in await self.setting.rows(_BLOCKED):
            wrong = row["why"] in ("wrong", "lacks")
            assert not (wrong and row["info_hash"] in right), f"I13: {row}"
        assert await self.setting.rows(_SECRETS) == [], "links are kept for too long"

    # --- indexers and the torrent client

    def list_(self, album: str, which: Listing) -> None:
        mine = [self.releases[album, kind] for kind in which]
        others = [spec for spec in self.setting.torrents if self.album_of(spec) != album]
        self.setting.torrents[:] = [*others, *mine]

    def album_of(self, spec: TorrentSpec) -> str:
        return next(album for (album, _), each in self.releases.items() if each is spec)

    @rule(album=albums, which=listings)
    def indexers_list(self, album: str, which: Listing) -> None:
        self.list_(album, which)
        if which in ((), ("wrong",)) or "wrong" in which:
            self.spoilt.add(album)

    @rule(album=albums, kind=kinds)
    def link_dies(self, album: str, kind: str) -> None:
        self.spoilt.add(album)
        self.setting.world.faults.fates[_fate(self.releases[album, kind])] = "dead_link"

    @rule(place=places)
    def torrent_comes(self, place: int) -> None:
        self.let_come(self.torrent(place, mine=False))

    @rule(copy=copies, comes=st.booleans())
    def downloads_go_on(self, copy: int, comes: bool) -> None:
        """The commonest course, so that runs come far."""
        self.step(copy, "direct")
        for spec in self.at_client() if comes else []:
            self.let_come(spec)
        for worker in ("torrents", "torrents", "fetcher", "leftovers"):
            self.do(self.jumped(16))
            self.step(copy, worker)

    def let_come(self, spec: TorrentSpec | None) -> None:
        if spec is not None:
            self.setting.world.faults.fates.pop(_fate(spec), None)

    def at_client(self) -> list[TorrentSpec]:
        there = at_client(self.setting.world)
        return [spec for spec in self.releases.values() if spec.info_hash in there]

    def torrent(self, place: int, *, mine: bool) -> TorrentSpec | None:
        found = [s for s in self.at_client() if not (mine and s.info_hash in self.strangers)]
        return found[place % len(found)] if found else None

    @rule(place=places, how=st.sampled_from(["forget_torrent", "break_torrent"]))
    def torrent_is_lost(self, place: int, how: str) -> None:
        spec = self.torrent(place, mine=True)
        if spec is not None:
            self.spoilt.add(self.album_of(spec))
            getattr(self.setting.world.standin, how)(spec.info_hash)

    @rule(place=places)
    def torrent_stalls(self, place: int) -> None:
        spec = self.torrent(place, mine=False)
        if spec is not None:
            self.spoilt.add(self.album_of(spec))
            self.do(self.setting.sql.execute(_STALL, spec.info_hash, STALL_S + 10.0))

    @rule(album=albums, kind=kinds)
    def stranger_adds_a_torrent(self, album: str, kind: str) -> None:
        """Somebody else does; not one that we may have begun to add as well."""
        spec = self.releases[album, kind]
        if spec.info_hash in at_client(self.setting.world) or self.do(self.concerns_us(spec)):
            return
        core = self.setting.world.standin.core
        [offer] = core.shelf.of_spec(spec)
        core.torrents.add_by_hand(offer, ByHand())
        self.strangers.add(spec.info_hash)

    async def concerns_us(self, spec: TorrentSpec) -> bool:
        known = {row["info_hash"] for row in await self.setting.rows(_KNOWN) if row["ours"]}
        begun = await self.setting.rows(
            "SELECT 1 FROM tickets WHERE way = 'direct' AND state <> 'closed'"
        )
        return bool(begun) or spec.info_hash in known

    @rule(
        copy=copies,
        what=st.sampled_from(["client_away", "searcher_away"]),
        worker=st.sampled_from(["direct", "direct", "torrents", "leftovers", "ticketer"]),
    )
    def outage_behind_torrentino(self, copy: int, what: str, worker: str) -> None:
        setattr(self.setting.world.faults, what, True)
        self.step(copy, worker)
        setattr(self.setting.world.faults, what, False)

    @rule(fault=st.sampled_from(["drop_before", "drop_after"]), only=st.sampled_from(_CALLS))
    def next_call_about_torrents_goes_wrong(self, fault: str, only: str) -> None:
        self.setting.calm()
        self.setting.world.faults.update({fault: 1, "only": only})

    # --- workers

    @rule(copy=copies, way=st.sampled_from(["direct", "direct", "tickets"]))
    def way_is_changed(self, copy: int, way: ModeName) -> None:
        self.setting.copies[copy].set_way(way)

    @rule(copy=copies, worker=st.sampled_from(DIRECT_WORKERS))
    def direct_worker_runs(self, copy: int, worker: str) -> None:
        self.step(copy, worker)

    @rule(copy=copies, jump_s=st.sampled_from([0, 16, 100]))
    def direct_workers_run(self, copy: int, jump_s: int) -> None:
        self.do(self.jumped(jump_s))
        for worker in ("direct", "torrents", "leftovers"):
            self.step(copy, worker)

    @rule(jump_s=st.sampled_from([4000, 90_000]))
    def much_time_passes(self, jump_s: int) -> None:
        self.do(self.jumped(jump_s))

    @precondition(lambda self: bool(self.model.unfinished))
    @rule(copy=copies, what=held_points)
    def direct_worker_is_held(self, copy: int, what: tuple[str, str]) -> None:
        at = self.setting.copies[copy]
        if at.held is None:
            self.worker_is_held_at(at, *what)

    @precondition(lambda self: bool(self.model.unfinished))
    @rule(copy=copies, what=held_points, jump_s=st.sampled_from([61, 300]))
    def direct_worker_is_late(self, copy: int, what: tuple[str, str], jump_s: int) -> None:
        at = self.setting.copies[copy]
        if at.held is not None:
            return
        self.worker_is_held_at(at, *what)
        self.do(self.jumped(jump_s))
        for worker in ("reaper", "direct", "torrents", "leftovers", "fetcher"):
            self.step(1 - copy, worker)

    # --- the end

    async def finish(self) -> None:
        """All is listed, all comes, and all that was asked for ends."""
        self.setting.calm()
        self.setting.world.faults.fates.clear()
        for album in ALBUMS:
            self.list_(album, ("good",))
        for copy in self.setting.copies:
            copy.set_way("direct")
            if copy.held is not None:
                await self.go_on(copy)
                await checks.look(self.setting, self.model, excused=self.excused)
        await self.jumped(self.back_s)
        await self.until_ended()
        await self.check_downloads()
        await self.check_torrents()
        await checks.finished(self.setting, self.model)

    async def until_ended(self) -> None:
        """Let time pass, and much of it when nothing happens, until nothing is left to do."""
        before, still, long = "", 0, 0
        for turn in range(_TURNS):
            self.deliver(approve=True)
            copy = self.setting.copies[turn % 2]
            for worker in EVERY_WORKER:
                await unless_held_up(copy.step(worker))
            await copy.relay.run_once()
            await self.jumped(100)
            now = await checks.everything(self.setting) + json.dumps(at_client(self.setting.world))
            still = still + 1 if now == before else 0
            before = now
            if still == 0:
                await checks.look(self.setting, self.model, excused=self.excused)
                await self.check_downloads()
            elif still >= _AT_REST:
                if not self.model.unfinished:
                    return
                assert long < MOST_LONG, f"it does not go on: {before}"
                await self.jumped(_LONG_S)
                long, still = long + 1, 0
        raise AssertionError(f"it does not come to rest: {before}")

    async def check_torrents(self) -> None:
        """I11: what is at the client is a stranger's, or has brought something."""
        known: dict[str, Row] = {r["info_hash"]: r for r in await self.setting.rows(_KNOWN)}
        for info_hash in at_client(self.setting.world).keys() - self.strangers:
            assert info_hash in known, f"I11: no row knows {info_hash}"
            assert known[info_hash]["brought"], f"I11: it brought nothing: {info_hash}"


# What was not found waits for a day, for three, and so on.
MOST_LONG = 6


def releases_of(setting: Setting) -> dict[tuple[str, str], TorrentSpec]:
    """What may be listed: each album as it should be, twice, and with other audio."""
    return {
        (album, kind): TorrentSpec.of(
            f"The Testers - {name_of(album)} {mark}",
            {f"{n:02d} Song {n}.flac": _audio(setting, kind, n) for n in numbers},
            folder=f"{album} {kind}",
            private=kind == "private",
            seeders=seeders,
        )
        for album, numbers in ALBUMS.items()
        for kind, (mark, seeders) in _TITLES.items()
    }


def _audio(setting: Setting, kind: str, number: int) -> Path:
    return setting.bad["other"] if kind == "wrong" else setting.songs[track_id(number)]


def _fate(spec: TorrentSpec) -> str:
    return spec.name.casefold()
