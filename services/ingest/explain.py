"""What an item waits for, and what stands still while a dependency is unavailable.

Two tables decide: what stops without each dependency, and which service works on an item of each
stage. An item waits for the dependencies that stop the service of its stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from shared.db.pool import Row
from shared.errors import Dependency
from shared.states import COLLECTING, NEEDS_ADMINISTRATOR, REMOTE, TERMINAL, WAITING, Stage

Json: TypeAlias = dict[str, Any]

# The work that stops without each dependency, and the service that does it.
_STOPS: dict[Dependency, tuple[tuple[str, str], ...]] = {
    "postgres": (("everything", "all"),),
    "nats": (("publishing", "all"),),
    "torrentino": (("ticketing", "ticketer"), ("polling", "poller")),
    "torrent_client": (("downloading", "ticketer"), ("following", "poller")),
    "searcher": (("searching", "ticketer"),),
    "catalog": (
        ("requesting", "ingest"),
        ("fetching", "fetcher_writer"),
        ("scanning", "watchdog"),
    ),
    "catalog_write": (("publishing to the catalog", "bridge"),),
    "media": (("requesting", "ingest"), ("fetching", "fetcher_writer"), ("scanning", "watchdog")),
    "media_write": (("fetching", "fetcher_writer"),),
    "space": (("fetching", "fetcher_writer"),),
    "incoming": (("fetching", "fetcher_writer"),),
    "ffmpeg": (("fetching", "fetcher_writer"),),
    "catalog_server": (("requests of the catalog server", "bridge"),),
}

# The same, where waiting is not enough: an operator has to change a setting first.
_STOPS_WITH_ALARM: dict[Dependency, tuple[tuple[str, str], ...]] = {
    "incoming": (("ticketing", "ticketer"),),
}

_TO_DO: dict[Dependency, str] = {
    "postgres": "check that PostgreSQL runs and that DATABASE_URL is its address",
    "nats": "check that NATS runs and that NATS_URL is its address; without it work is slower",
    "torrentino": "check that Torrentino runs and that TORRENTINO_URL is its address",
    "searcher": "check that Torrentino's indexers (Jackett or Prowlarr) run and are set there",
    "torrent_client": "check that Torrentino's torrent client runs and is set there",
    "catalog": "check that CATALOG_DB exists and can be read",
    "catalog_server": "check that the catalog server runs and that CATALOG_SERVER_URL is its"
    " address; without it the queue works, but requests there wait",
    "catalog_write": "check that the catalog server runs and lets the bridge write to CATALOG_DB",
    "media": "check that MEDIA_PATH is mounted and can be written to",
    "media_write": "check that the fetcher-writer can write to .incoming and audio of MEDIA_PATH",
    "space": "free some space on the disk of MEDIA_PATH",
    "incoming": "check that the incoming folder exists and is Torrentino's",
    "ffmpeg": "install ffmpeg and ffprobe",
}

_WORKER: dict[Stage, str | None] = {
    **dict.fromkeys(WAITING | {Stage.TICKETING}, "ticketer"),
    **dict.fromkeys(REMOTE, "poller"),
    **dict.fromkeys(COLLECTING, "fetcher_writer"),
    Stage.NEEDS_CHOICE: None,
}
assert _WORKER.keys() == set(Stage) - TERMINAL, "each stage has its worker, or an administrator"

_NEXT = {
    Stage.TICKETING: "Torrentino to take the ticket",
    Stage.SEARCHING: "Torrentino to find a torrent",
    Stage.NEEDS_APPROVAL: "an administrator to approve a torrent at Torrentino",
    Stage.DOWNLOADING: "Torrentino to download the torrent",
    Stage.PROCESSING: "Torrentino to place the file",
    Stage.READY: "a fetcher-writer",
    Stage.FETCHING: "the file to be collected",
    Stage.NEEDS_CHOICE: "an administrator to choose the file of the torrent",
    Stage.VERIFYING: "the file to be decoded",
    Stage.CONVERTING: "the file to be converted",
}
# The same, of a direct download.
_NEXT_DIRECT = {
    Stage.TICKETING: "a release to be chosen and added",
    Stage.SEARCHING: "the torrent client to get the torrent's metadata",
    Stage.DOWNLOADING: "the torrent client to download it",
}
assert _NEXT.keys() | WAITING == set(Stage) - TERMINAL, "each stage waits for something"
# How a ticketer's reasons begin for what it has put off without an attempt.
_PUT_OFF = ("waits", "nothing was found")


def paused(conditions: Json) -> list[Json]:
    """One entry for each part of the work that stands still, with since when and why.

    `to_do` is what an operator has to change (an alarm), or to check if it does not return.
    """
    return [
        {
            "stage": work,
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
        for work, service in _stops(name, condition)
    ]


def _stops(name: Dependency, condition: Json) -> tuple[tuple[str, str], ...]:
    more = _STOPS_WITH_ALARM.get(name, ()) if condition["alarm"] else ()
    return _STOPS[name] + more


def waiting_for(item: Row | Mapping[str, Any], conditions: Json) -> str | None:
    """What the item waits for, in words: an unavailable dependency first.

    None when it waits for nothing any more.
    """
    stage = Stage(item["stage"])
    for name in needed(stage, mode=item["way"]):
        condition = conditions.get(name)
        if condition is not None and not condition["ok"]:
            return f"{name}: {condition['detail']}"
    for name, stops in _STOPS_WITH_ALARM.items():
        condition = conditions.get(name)
        stopped = _WORKER.get(stage) in {by for _, by in stops}
        if stopped and condition is not None and not condition["ok"] and condition["alarm"]:
            return f"{name}: {condition['detail']}"
    return _next(item)


def needed(stage: Stage, *, mode: str | None) -> list[Dependency]:
    """The dependencies without which an item of this stage stands still.

    `mode`: the acquisition mode of its download, None before it has one.
    """
    worker = _WORKER.get(stage)
    names = [name for name, stops in _STOPS.items() if worker in {by for _, by in stops}]
    if stage in REMOTE and mode != "direct":
        # The poller asks Torrentino about a ticket, the torrent client about a direct download.
        names.remove("torrent_client")
    return names


def _next(item: Row | Mapping[str, Any]) -> str | None:
    stage = Stage(item["stage"])
    if stage in WAITING:
        return _turn(item)
    if stage is Stage.READY and item["waits"]:
        return "the next try to collect the file"
    if item["way"] == "direct" and stage in _NEXT_DIRECT:
        return _NEXT_DIRECT[stage]
    return _NEXT.get(stage)


def _turn(item: Row | Mapping[str, Any]) -> str:
    if item["waits"]:
        reason = str(item["reason"] or "")
        return reason if reason.startswith(_PUT_OFF) else "the time of its next attempt"
    if item["tombstone"]:
        return "an earlier ticket of the track to stay cancelled at Torrentino"
    return "its turn"


def waits_until(item: Row | Mapping[str, Any], *, stall_timeout_s: float) -> int | None:
    """When the item moves even if what it waits for does not come, in Unix seconds.

    None where there is no such time: it waits for its turn, for an administrator, or for nothing.
    """
    stage = Stage(item["stage"])
    if item["lease_until"] is not None:
        return int(item["lease_until"])
    if stage in REMOTE - NEEDS_ADMINISTRATOR:
        return int(float(item["progressed_at"]) + stall_timeout_s)
    if stage in WAITING | {Stage.READY} and item["waits"]:
        return int(item["due_at"])
    return None
