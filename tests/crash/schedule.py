"""What a run of the crash search does: which processes there are, and what happens to them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.local.torrentino.config import Client
from shared.crashpoints import POINTS
from shared.settings import EVERY_SERVICE, Service

# link, copy, http: what Torrentino has placed, on this filesystem, another, or over HTTP.
# torrent: the torrents' own folder. direct: what we have searched for and followed ourselves.
Delivery = Literal["link", "copy", "http", "torrent", "direct"]
Kill = tuple[str, int]
Away = Literal["client_away", "searcher_away"]

_PREFIXES: dict[Service, tuple[str, ...]] = {
    "ingest": ("ingest", "withdraw", "retry", "decision", "consumer", "relay"),
    "ticketer": ("ticketer", "direct", "relay"),
    "poller": ("poller", "tidying", "torrents", "leftovers", "relay"),
    "fetcher_writer": ("fetcher", "cleaning", "download", "media", "ledger", "relay"),
    "watchdog": ("watchdog", "adopt", "consumer", "relay"),
    "reaper": ("reaper", "relay"),
    "bridge": ("bridge", "relay"),
}
_ONLY: dict[str, Delivery] = {
    "download": "http",
    "media.created": "copy",
    "media.copying": "copy",
    "media.copied": "copy",
    "media.linked": "link",
    "cleaning": "link",
    "adopt": "link",
    "ingest.noted": "link",
    "poller.processing": "link",
    "poller.processed": "link",
    "tidying.ticket_removed": "link",
    "fetcher.converting": "copy",
    "fetcher.converted": "copy",
    "fetcher.source_kept": "copy",
    "tidying.torrent_removed": "copy",
    # What is refused may be the album that a person is to decide about.
    "ticketer.refused": "link",
    "fetcher.held": "torrent",
    "decision": "torrent",
    "direct": "direct",
    "torrents": "direct",
    "leftovers": "direct",
    "fetcher.blocked": "direct",
}
# What is only reached after another crash.
_BEFORE = {"reaper.gave_back": "fetcher.claimed", "direct.found": "direct.adding"}

# The others are in test_bridge.py, for they need a catalog server.
SEARCHED = [point for point in POINTS if not point.startswith("server.")]

# Where a file is on its way to its name, for the pairs.
FILE_PATH = [
    point
    for point in POINTS
    if point.startswith(("fetcher", "media", "ledger", "cleaning", "relay"))
    and _ONLY.get(point, "link") == "link"
    # Not on the way of a file that is delivered as it should be to a free name.
    and point not in ("fetcher.moved_aside", "fetcher.failing", "fetcher.failed", "fetcher.kept")
    # Nor of one that no administrator releases.
    and point != "fetcher.accepted"
    # Nor where there is one file only.
    and point not in ("fetcher.sampled", "fetcher.assigned", "fetcher.missed", "fetcher.blocked")
]


@dataclass(frozen=True, kw_only=True)
class Process:
    """One of the processes: it is killed at each of `kills`, and started again each time."""

    services: tuple[Service, ...]
    kills: tuple[Kill, ...] = ()
    # Whether the kills come in this order, or as they are reached.
    in_turn: bool = False
    # At this point of its first life, frozen for so many seconds.
    freeze: tuple[str, int, float] | None = None
    # Seconds after the beginning at which it is killed, wherever it is.
    killed_at_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One run; `replay` are the arguments of `python -m tests.crash` that repeat it."""

    replay: str
    processes: tuple[Process, ...]
    delivery: Delivery = "link"
    # Only the way of two good files, instead of everything that can come up.
    plain: bool = False
    deaf: int = 0
    nats_killed_at_s: float | None = None
    # Where we search ourselves: whose torrents' client it is, which of ours are removed, and which
    # of the client and the indexers is away, from when, for how long.
    client: Client = "qbittorrent"
    cleanup: Literal["keep", "wrong", "all"] = "wrong"
    away: tuple[Away, float, float] | None = None
    bug: str = ""
    seed: int = field(default=0)

    @property
    def points(self) -> list[str]:
        """The points at which it kills."""
        return [point for process in self.processes for point, _ in process.kills]


def at_points(text: str, *, plain: bool = False, bug: str = "") -> Schedule:
    """Everything in one process, killed at `a`, `a@2` (the second time), or `a+b` in turn.

    Raises:
        ValueError: there is no such point.
    """
    kills = tuple(_kill(part) for part in text.split("+"))
    first = kills[0][0]
    if first in _BEFORE:
        kills = ((_BEFORE[first], 1), *kills)
    return Schedule(
        replay=f"--points {text}{' --plain' if plain else ''}",
        processes=(Process(services=EVERY_SERVICE, kills=kills, in_turn=True),),
        delivery=_delivery([point for point, _ in kills]) or "link",
        plain=plain,
        bug=bug,
    )


def _kill(part: str) -> Kill:
    point, _, n = part.partition("@")
    if point not in POINTS:
        raise ValueError(f"there is no crash point {point}")
    return point, int(n or 1)


def _delivery(points: Sequence[str]) -> Delivery | None:
    """How files have to come for all of these points to be reached; None where it is all one."""
    return next((delivery for point in points if (delivery := _only(point))), None)


def _only(point: str) -> Delivery | None:
    return _ONLY.get(point) or _ONLY.get(point.partition(".")[0])


def pairs() -> Iterator[Schedule]:
    """All pairs of points on the way of a file: killed at the first, and then at the second."""
    for one, other in itertools.product(FILE_PATH, repeat=2):
        yield at_points(f"{one}+{other}", plain=True)


def by_seed(seed: int, *, of: int = 0) -> Schedule:
    """Several processes, some of them twice, and whatever comes to the seed's mind.

    `of` seeds from 0 on share all points among them, so that together they leave none out.
    """
    rng = random.Random(seed)
    shared = _share(seed % of, of) if of else []
    chosen: Delivery = rng.choice(_CHOSEN[:5] if of else _CHOSEN)
    delivery = _delivery(shared) or chosen
    # Those that share the points are for every test run, so they are the lighter ones.
    layout = rng.choice(_LAYOUTS[: 3 if of else None])
    processes = tuple(_process(rng, services, shared, harder=not of) for services in layout)
    return Schedule(
        replay=f"--seed {seed}{f' --of {of}' if of else ''}",
        processes=processes,
        delivery=delivery,
        deaf=rng.choice([0, 0, 5, 10]),
        nats_killed_at_s=rng.uniform(0.2, 2.5) if rng.random() < 0.25 else None,
        client=rng.choice(["qbittorrent", "librqbit"]),
        cleanup=rng.choice(["wrong", "all"] if of else ["wrong", "all", "keep"]),
        away=_away(rng) if delivery == "direct" and rng.random() < 0.4 else None,
        seed=seed,
    )


_CHOSEN: list[Delivery] = ["link", "link", "torrent", "copy", "http", "direct", "direct", "direct"]


def _away(rng: random.Random) -> tuple[Away, float, float]:
    what: Away = rng.choice(["client_away", "searcher_away"])
    return what, rng.uniform(0.2, 3), rng.uniform(0.2, 1.5)


_LAYOUTS: list[tuple[tuple[Service, ...], ...]] = [
    (EVERY_SERVICE,),
    (EVERY_SERVICE, ("ticketer", "poller", "fetcher_writer", "reaper", "bridge")),
    (("ingest", "watchdog"), ("ticketer", "poller"), ("fetcher_writer", "reaper", "bridge")),
    (
        ("ingest", "watchdog", "reaper", "bridge"),
        ("ticketer", "poller"),
        ("ticketer", "poller"),
        ("fetcher_writer",),
        ("fetcher_writer",),
    ),
    tuple((service,) for service in EVERY_SERVICE),
]


def _share(seed: int, of: int) -> list[str]:
    """The points of one of so many seeds; every fourth has those of direct downloads alone."""
    direct = [other for other in range(of) if other % 4 == 3]
    if seed in direct:
        return _DIRECT[direct.index(seed) :: len(direct)]
    others = [other for other in range(of) if other % 4 != 3]
    return _OTHERS[others.index(seed) :: len(others)]


_DIRECT = [point for point in SEARCHED if _only(point) == "direct"]
# Those that need a delivery of their own come first, so that no two meet in one schedule.
_OTHERS = sorted(set(SEARCHED) - set(_DIRECT), key=lambda point: (_only(point) is None, point))


def reachable(services: Sequence[Service]) -> list[str]:
    """The points that a process of these services may come to."""
    prefixes = {prefix for service in services for prefix in _PREFIXES[service]}
    return [point for point in POINTS if point.partition(".")[0] in prefixes]


def _process(
    rng: random.Random, services: tuple[Service, ...], shared: Sequence[str], *, harder: bool
) -> Process:
    points = reachable(services)
    # Every copy has its turn with these: which of them gets the work is not known.
    kills = [(point, 1) for point in shared if point in points]
    kills += [(_BEFORE[point], 1) for point, _ in kills if point in _BEFORE]
    if harder:
        kills += [(rng.choice(points), rng.randint(1, 4)) for _ in range(rng.randint(0, 2))]
    frozen = (rng.choice(points), rng.randint(1, 3), rng.uniform(1.2, 2.5))
    return Process(
        services=services,
        kills=tuple(kills),
        freeze=frozen if rng.random() < 0.3 else None,
        killed_at_s=rng.uniform(0.3, 4) if rng.random() < 0.3 else None,
    )
