"""What stands still because a dependency is away, and what a person can do about it."""

from __future__ import annotations

from typing import Any, TypeAlias

from shared.errors import Dependency
from shared.states import Stage

Json: TypeAlias = dict[str, Any]

# What each dependency's absence stops, with the service that does it.
_STOPS: dict[Dependency, tuple[tuple[str, str], ...]] = {
    "postgres": (("everything", "all"),),
    "nats": (("publishing", "all"),),
    "torrentino": (("ticketing", "ticketer"), ("polling", "poller")),
    "searcher": (("searching", "ticketer"),),
    "torrent_client": (("downloading", "ticketer"), ("following", "poller")),
    "catalog": (("requesting", "ingest"), ("scanning", "watchdog")),
    "media": (("requesting", "ingest"), ("fetching", "fetcher_writer"), ("scanning", "watchdog")),
    "space": (("fetching", "fetcher_writer"),),
    "incoming": (("fetching", "fetcher_writer"),),
    "ffmpeg": (("fetching", "fetcher_writer"),),
}

_TO_DO: dict[Dependency, str] = {
    "postgres": "see that PostgreSQL runs and that DATABASE_URL leads to it",
    "nats": "see that NATS runs and that NATS_URL leads to it; until then all is only slower",
    "torrentino": "see that Torrentino runs and that TORRENTINO_URL leads to it",
    "searcher": "see that Torrentino's indexers (Jackett or Prowlarr) run and are set there",
    "torrent_client": "see that Torrentino's torrent client runs and is set there",
    "catalog": "see that CATALOG_DB is there and can be read",
    "media": "see that MEDIA_PATH is mounted and can be written to",
    "space": "free some space on the disk of MEDIA_PATH",
    "incoming": "see that the incoming folder is there and is Torrentino's",
    "ffmpeg": "install ffmpeg and ffprobe",
}

_TO_TORRENTINO = frozenset({Stage.QUEUED, Stage.RETRY_WAIT, Stage.TICKETING})
_AT_TORRENTINO = frozenset({Stage.SEARCHING, Stage.DOWNLOADING, Stage.PROCESSING})
_TO_THE_DISK = frozenset({Stage.READY, Stage.FETCHING, Stage.VERIFYING})


def paused(conditions: Json) -> list[Json]:
    """One entry for each part of the work that stands still, with since when and why.

    `to_do` says what a person has to change (an alarm), or where to look should it not return.
    """
    return [
        {
            "stage": stage,
            "service": service,
            "dependency": name,
            "since": condition["since"],
            "why": condition["detail"],
            "alarm": condition["alarm"],
            "to_do": condition["detail"] if condition["alarm"] else _TO_DO[name],
            "next_try_at": condition["next_try_at"],
        }
        for name in _STOPS
        if (condition := conditions.get(name)) is not None and not condition["ok"]
        for stage, service in _STOPS[name]
    ]


def waits_for(stage: str, conditions: Json, *, way: str | None) -> str | None:
    """The dependency that keeps an item of this stage waiting, and why; None if none does.

    `way`: of its download, or None before it has one.
    """
    for name in _needed(Stage(stage), way):
        condition = conditions.get(name)
        if condition is not None and not condition["ok"]:
            return f"{name}: {condition['detail']}"
    return None


def _needed(stage: Stage, way: str | None) -> tuple[Dependency, ...]:
    if stage in _TO_TORRENTINO:
        return ("torrentino", "torrent_client", "searcher")
    if stage in _AT_TORRENTINO:
        return ("torrentino", "torrent_client") if way == "direct" else ("torrentino",)
    return ("media", "space", "incoming", "ffmpeg") if stage in _TO_THE_DISK else ()
