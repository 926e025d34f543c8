"""The accuracy and the cost of the matching, on generated torrents of a realistic mix.

Right, doubtful and missed are counted over the tracks that a torrent has; wrong over all. A torrent
is solvable if its files have the right titles, all different, or else numbers or any titles and
clearly different lengths. In other torrents doubt is the correct answer.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shared.matching.assign import assign, to_measure
from shared.matching.model import Assignment, Offered
from shared.tracks import CatalogTrack
from tests.support.albums import (
    ALBUM,
    BESIDE,
    EXTRAS,
    TITLES,
    TOLERANCE_S,
    Recipe,
    Torrent,
    build,
)
from tests.support.world import World

# The weights were tuned with other seeds.
_SEED = 20_260_101
_ALBUMS = 3000
_SCHEMES = {
    "01 - Title": 30, "01. Title": 15, "01 Title": 12, "01 - Artist - Title": 8, "101 Title": 3,
    "Artist - Album - 01 - Title": 8, "01-artist-title-grp": 6, "1-01 Title": 4, "Title": 4,
    "Artist - 01 - Title": 3, "A1 Title": 2, "Artist - Title": 2, "01": 1, "Track 01": 2,
    "tags": 1, "garbage": 1, "(01) [Artist] Title": 1,
    "0101 Title": 2, "T01 Title": 1, "ZT001-Title": 1, "Title 01": 2, "Title (01)": 1,
    "01 Title [video]": 3,
}  # fmt: skip
_TITLES = {
    "distinct": 70, "unicode": 8, "parts": 7, "similar": 4, "repeated": 4, "translated": 4,
    "foreign": 2,
}  # fmt: skip
_ADDED = {"": 96, " (Live)": 3, " [Demo]": 1}
_LENGTHS = {"mixed": 85, "near": 10, "far": 3, "equal": 2}
_LIES = {"none": 88, "swap": 5, "numbers": 3, "shift": 2, "shuffle": 2}
_MAPPINGS = {"right": 60, "none": 25, "wrong": 15}


async def run(world: World) -> dict[str, Any]:  # noqa: ARG001 it needs no world
    """Accuracy over the generated set, and seconds for an album."""
    assert _TITLES.keys() <= set(TITLES)
    made = random.Random(_SEED)
    counted: Counter[str] = Counter()
    took_s = []
    for _ in range(_ALBUMS):
        torrent = build(_recipe(made))
        started = time.perf_counter()
        decided = _measured(torrent.tracks, torrent.unmeasured(), torrent.offered)
        took_s.append(time.perf_counter() - started)
        counted += _count(torrent, decided)
    took_s.sort()
    return {
        "albums": _ALBUMS,
        "seed": _SEED,
        **{key: counted[key] for key in _KEYS},
        "right %": _percent(counted["right"], counted["there"]),
        "doubtful % of solvable": _percent(counted["solvable doubtful"], counted["solvable"]),
        "missed % of solvable": _percent(counted["solvable missed"], counted["solvable"]),
        "p50 ms an album, all rounds": round(took_s[len(took_s) // 2] * 1000, 1),
        "p99 ms an album, all rounds": round(took_s[len(took_s) * 99 // 100] * 1000, 1),
        "worst ms, 100 tracks and 150 files": _worst_ms(),
    }


_KEYS = (
    "there", "right", "wrong", "wrong though names are true", "doubtful", "missed", "solvable",
    "solvable right", "solvable wrong", "solvable doubtful", "solvable missed",
)  # fmt: skip


def _recipe(made: random.Random) -> Recipe:
    count = made.choice([1, 2, 5, 8, 10, 11, 12, 12, 13, 14, 16, 20, 24])
    lacking = made.choice([0, 0, 0, 0.1, 0.3])
    return Recipe(
        tracks=count,
        discs=2 if count > 14 else 1,
        titles=_drawn(made, _TITLES),
        lengths=_drawn(made, _LENGTHS),
        scheme=_drawn(made, _SCHEMES),
        disc_folders=made.random() < 0.9,
        lie=_drawn(made, _LIES),
        mapping=_drawn(made, _MAPPINGS),
        extras=tuple(made.choices(EXTRAS, k=made.choice([0, 0, 0, 1, 2, 4]))),
        lacks=frozenset(place for place in range(count) if made.random() < lacking),
        doubled=made.random() < 0.05,
        off_s=made.choice([0.1, 0.5, 0.5, 2.0]),
        catalog_lengths=made.random() < 0.97,
        typed_badly=made.random() < 0.1,
        beside=made.choice(BESIDE) if made.random() < 0.1 else None,
        added=_drawn(made, _ADDED),
        discography=made.random() < 0.05,
        seed=made.getrandbits(32),
    )


def _drawn(made: random.Random, weights: dict[str, int]) -> str:
    return made.choices(list(weights), list(weights.values()))[0]


def _measured(
    tracks: Sequence[CatalogTrack], offered: list[Offered], known: Sequence[Offered]
) -> Assignment:
    """As in the fetcher-writer: likely files are measured first, all of them if in doubt."""
    measured = {one.name: one for one in known}
    decided = _assigned(tracks, offered)
    while names := {one.name for one in to_measure(decided, offered)}:
        offered = [measured[one.name] if one.name in names else one for one in offered]
        decided = _assigned(tracks, offered)
    return decided if len(decided.sure) == len(tracks) else _assigned(tracks, known)


def _assigned(tracks: Sequence[CatalogTrack], offered: Sequence[Offered]) -> Assignment:
    wanted = [track.id for track in tracks]
    return assign(tracks, wanted, offered, tolerance_s=TOLERANCE_S, album=ALBUM)


def _count(torrent: Torrent, decided: Assignment) -> Counter[str]:
    counted: Counter[str] = Counter(there=len(torrent.present))
    right = {track for track, one in decided.sure.items() if torrent.truth[one.name] == track}
    counted["right"] = len(right)
    counted["wrong"] = len(decided.sure) - len(right)
    counted["doubtful"] = len(torrent.present & decided.doubtful.keys())
    counted["missed"] = len(torrent.present & decided.missing)
    if torrent.named and not torrent.names_lie:
        counted["wrong though names are true"] = counted["wrong"]
    if _solvable(torrent):
        counted["solvable"] = len(torrent.present)
        for key in ("right", "wrong", "doubtful", "missed"):
            counted[f"solvable {key}"] = counted[key]
    return counted


def _solvable(torrent: Torrent) -> bool:
    """Whether an expert could tell for each file which track it is."""
    true_names = torrent.titles_tell and torrent.recipe.catalog_lengths
    return true_names or (torrent.lengths_tell and torrent.named)


def _percent(part: int, whole: int) -> float:
    return round(100 * part / max(1, whole), 2)


def _worst_ms() -> float:
    worst = 0.0
    for titles in TITLES:
        recipe = Recipe(
            tracks=100, discs=4, titles=titles, lengths="mixed", extras=("bonus",) * 50, seed=_SEED
        )
        torrent = build(recipe)
        started = time.perf_counter()
        _assigned(torrent.tracks, torrent.offered)
        worst = max(worst, time.perf_counter() - started)
    return round(worst * 1000, 1)
