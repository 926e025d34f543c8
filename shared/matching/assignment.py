"""The assignment with the most points, and the tracks for which another is nearly as good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from shared.matching.copies import Choice, choose
from shared.matching.evidence import Album, Pair
from shared.matching.titles import Likeness

# A right number adds 40 points, an exact length 30: neither alone tells two recordings apart.
MARGIN = 45
# With more pairs among tracks and files that are all alike, all of them are doubtful.
_MOST_PAIRS = 600
# Two files of the same name are the same recording if their lengths differ by no more than this
# part of the tolerance.
_SAME_LENGTH = 0.5

_Edge = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """By track id: the sure pairs, and the tracks for which another file is as likely."""

    sure: Mapping[str, Pair]
    doubtful: frozenset[str]
    # Those that have several files of their name, which may be different recordings.
    rivals: Mapping[str, Choice]


def settle(album: Album, pairs: Sequence[Pair]) -> Settled:
    """Assign the pairs one to one, with the most points in total; their order does not matter.

    Of several files with the same recording the best is taken: see `copies`.
    """
    edges = {(pair.track.id, pair.file.name): pair for pair in pairs}
    sure: dict[str, Pair] = {}
    doubtful: set[str] = set()
    for component in _components(edges):
        if len(component) > _MOST_PAIRS:
            doubtful |= {track_id for track_id, _ in component}
            continue
        if len(component) == 1:
            ((track_id, _),) = component
            sure[track_id] = next(iter(component.values()))
            continue
        found, unsure = _settle_component(album, component)
        sure |= found
        doubtful |= unsure
    chosen, rivals = _best_of_same(album, edges, sure)
    return Settled(sure=chosen, doubtful=frozenset(doubtful), rivals=rivals)


def same_recording(album: Album, one: Pair, other: Pair) -> bool:
    """Whether two files that may be the track appear to be copies, by their names."""
    if one.likeness is not other.likeness or one.likeness < Likeness.UNKNOWN:
        return False
    if not _agree(one.file.number, other.file.number):
        return False
    if not _agree(one.file.disc, other.file.disc):
        return False
    left, right = one.file.offered.duration_s, other.file.offered.duration_s
    return left is None or right is None or abs(left - right) <= _SAME_LENGTH * album.tolerance_s


def _agree(left: int | None, right: int | None) -> bool:
    return left is None or right is None or left == right


def _components(edges: Mapping[_Edge, Pair]) -> Iterable[dict[_Edge, Pair]]:
    graph = nx.Graph()
    graph.add_edges_from((("track", track_id), ("file", name)) for track_id, name in sorted(edges))
    for nodes in nx.connected_components(graph):
        yield {
            edge: edges[edge] for edge in sorted(edges) if ("track", edge[0]) in nodes
        }  # fmt: skip


def _settle_component(album: Album, edges: dict[_Edge, Pair]) -> tuple[dict[str, Pair], set[str]]:
    best = _matched(edges)
    points = _points(edges, best)
    sure: dict[str, Pair] = {}
    doubtful: set[str] = set()
    for track_id in sorted({edge[0] for edge in edges}):
        name = best.get(track_id)
        if name is None:
            if _could_have(edges, track_id, points):
                doubtful.add(track_id)
        elif _copied(album, edges, best, track_id) or _contested(
            album, edges, (track_id, name), points
        ):
            doubtful.add(track_id)
        else:
            sure[track_id] = edges[track_id, name]
    return sure, doubtful


def _copied(
    album: Album, edges: Mapping[_Edge, Pair], best: Mapping[str, str], track_id: str
) -> bool:
    """Whether the file may be a copy of the file of another track with the same name."""
    name = best[track_id]
    return any(
        same_recording(album, edges[other, best[other]], pair)
        for (other, named), pair in edges.items()
        if named == name and other != track_id and other in best
    )


def _contested(album: Album, edges: dict[_Edge, Pair], taken: _Edge, points: int) -> bool:
    """Whether another pair for the track or the file costs few points."""
    pair = edges[taken]
    others = {
        edge: other
        for edge, other in edges.items()
        if edge != taken and not (edge[0] == taken[0] and same_recording(album, pair, other))
    }
    if not any(edge[0] == taken[0] or edge[1] == taken[1] for edge in others):
        return False
    other_way = _matched(others)
    if taken[0] not in other_way and taken[1] not in other_way.values():
        return False
    return points - _points(edges, other_way) < MARGIN


def _could_have(edges: dict[_Edge, Pair], track_id: str, points: int) -> bool:
    """Whether a track that the best assignment leaves out could have a file for few points less."""
    for edge, pair in edges.items():
        if edge[0] == track_id:
            rest = {
                other: found
                for other, found in edges.items()
                if other[0] != track_id and other[1] != edge[1]
            }
            if points - _points(rest, _matched(rest)) - pair.points < MARGIN:
                return True
    return False


def _matched(edges: Mapping[_Edge, Pair]) -> dict[str, str]:
    """The file of each track in the assignment with the most points."""
    graph = nx.Graph()
    for (track_id, name), pair in edges.items():
        graph.add_edge(("track", track_id), ("file", name), weight=pair.points)
    matched = nx.max_weight_matching(graph)
    ordered = [sorted(nodes, key=lambda node: node[0] != "track") for nodes in matched]
    return {track[1]: file[1] for track, file in ordered}


def _points(edges: Mapping[_Edge, Pair], matched: Mapping[str, str]) -> int:
    return sum(edges[track_id, name].points for track_id, name in matched.items())


def _best_of_same(
    album: Album, edges: Mapping[_Edge, Pair], sure: Mapping[str, Pair]
) -> tuple[dict[str, Pair], dict[str, Choice]]:
    """`sure` with the best of the files that no other track has, and the open choices."""
    taken = {pair.file.name for pair in sure.values()}
    by_track: dict[str, list[Pair]] = {}
    for (track_id, _), pair in edges.items():
        by_track.setdefault(track_id, []).append(pair)
    chosen: dict[str, Pair] = {}
    rivals: dict[str, Choice] = {}
    for track_id in sorted(sure):
        mine = sure[track_id]
        copies = [
            pair for pair in by_track[track_id]
            if pair.file.name not in taken and same_recording(album, mine, pair)
        ]  # fmt: skip
        choice = choose(album, [mine, *copies])
        if choice.taken is None:
            rivals[track_id] = choice
            continue
        chosen[track_id] = choice.taken
        taken = (taken - {mine.file.name}) | {choice.taken.file.name}
    return chosen, rivals
