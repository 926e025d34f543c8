"""The downloads of approved tickets, with failover and the races of a cancel."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from services.local.torrentino import states
from services.local.torrentino.acquisition import Acquisition
from services.local.torrentino.core import Core
from services.local.torrentino.pipeline import Pipeline
from services.local.torrentino.tickets import Ticket
from services.local.torrentino.timestamps import now_ns, zulu_form
from services.local.torrentino.torrent import Torrent
from services.local.torrentino.torrents import ClientError

_LOG = logging.getLogger(__name__)
_ROUNDS = 3
_ANNOUNCE_EVERY = 10  # steps between two messages about an unchanged state
_NO_CANDIDATE = (
    "Failed to start pipeline: missing data in ticket:"
    " No candidate at current index in Downloading state"
)
_TIMEOUT = "Torrent client error: request timeout"
_NO_MAGNET = "API error: Failed to add torrent: provided path is not a valid magnet URL"


@dataclass(kw_only=True)
class _Active:
    """A download that the monitor follows."""

    info_hash: str
    candidate_idx: int = 0
    failover_round: int = 1
    started_ns: int = field(default_factory=now_ns)
    last_pct: float = 0.0
    last_pct_ns: int = field(default_factory=now_ns)
    beats: int = 0
    failed_over: bool = False
    fooled: bool = False  # takes the torrent's check for its completion
    zombie: bool = False  # its torrent vanished after a cancel: never polled again


class Downloads:
    """The state of the download loop, and its step."""

    def __init__(self, core: Core, acquisition: Acquisition, pipeline: Pipeline) -> None:
        self._core = core
        self._acquisition = acquisition
        self._pipeline = pipeline
        self._active: dict[str, _Active] = {}

    @property
    def active(self) -> int:
        """How many downloads count towards `max_concurrent_downloads`."""
        return sum(not each.zombie for each in self._active.values())

    def recover(self) -> None:
        """At the start: follow every ticket in state `downloading` again."""
        for ticket in self._core.tickets.of_kind("downloading"):
            self._acquisition.restore(ticket)
            state = ticket.state
            share = _number(state.get("progress_pct")) / 100.0
            index = int(_number(state.get("candidate_idx")))
            info_hash = str(state.get("info_hash", ""))
            with suppress(ClientError):  # not added: followed as a vanished torrent
                self._core.torrents.add(info_hash, progress=min(share, 0.99))
            self._active[ticket.id] = _Active(
                info_hash=info_hash,
                candidate_idx=index,
                failover_round=int(_number(state.get("failover_round"))) or 1,
                failed_over=index > 0,
            )

    def forget(self, ticket_id: str) -> None:
        """Stop following this ticket."""
        self._active.pop(ticket_id, None)

    def step(self) -> None:
        """Poll every download once, then start the approved tickets."""
        self._core.torrents.advance()
        for ticket_id, active in list(self._active.items()):
            if not active.zombie and not self._core.faults.client_away:
                self._monitor(ticket_id, active)
        self._start_approved()

    def _start_approved(self) -> None:
        tickets = self._core.tickets
        free = self._core.config.max_concurrent_downloads - self.active
        if free <= 0 or not tickets.count("approved") + tickets.count("auto_approved"):
            return
        waiting = [*tickets.of_kind("auto_approved"), *tickets.of_kind("approved")]
        ready = [ticket for ticket in waiting if ticket.id not in self._active]
        for ticket in ready[:free]:
            self._start(ticket)

    def _start(self, ticket: Ticket) -> None:
        """Add the first candidate that can be added; as in the real server, ignore `selected`."""
        hashes = [_hash(each) for each in _candidates(ticket)]
        if hashes and not any(hashes) and self._core.config.client == "qbittorrent":
            self._give_up(ticket, len(hashes))
            return
        reason = _TIMEOUT
        for index, info_hash in enumerate(hashes):
            torrent, reason = self._add(ticket, info_hash)
            if torrent is not None:
                empty = self._core.fate(ticket) == "empty_hash"
                active = _Active(info_hash="" if empty else info_hash, candidate_idx=index)
                active.fooled = self._core.torrents.early(torrent)
                self._active[ticket.id] = active
                self._write(ticket, active, None)
                return
        error = f"All {len(hashes)} candidates failed to add. Last error: {reason}"
        self._core.tickets.put(ticket.id, states.failed(error, retryable=True))

    def _add(self, ticket: Ticket, info_hash: str) -> tuple[Torrent | None, str]:
        """Start the torrent, or give the reason why it cannot start.

        The search results of an earlier process are restored first if needed.
        """
        torrents = self._core.torrents
        if not info_hash:
            return None, _NO_MAGNET
        if self._core.fate(ticket) == "add_failed" and not self._core.faults.client_away:
            return None, _TIMEOUT
        try:
            torrents.require("add")
            torrent = torrents.add(info_hash)
            if torrent is None:
                self._acquisition.restore(ticket)
                torrent = torrents.add(info_hash)
        except ClientError as exc:
            return None, str(exc)
        return torrent, _TIMEOUT

    def _monitor(self, ticket_id: str, active: _Active) -> None:
        ticket = self._core.tickets.get(ticket_id)
        if ticket is None:
            self.forget(ticket_id)
            return
        torrent = self._core.torrents.get(active.info_hash)
        if torrent is None:
            self._vanished(ticket, active)
        elif torrent.done or active.fooled:
            self._finish(ticket, active, torrent)
        elif not self._fated(ticket, active, torrent):
            self._write(ticket, active, torrent)

    def _vanished(self, ticket: Ticket, active: _Active) -> None:
        _LOG.warning("torrent %s was deleted externally for ticket %s", active.info_hash, ticket.id)
        if ticket.kind == "downloading":
            self._fail_over(ticket, active)
        else:
            active.zombie = True

    def _fated(self, ticket: Ticket, active: _Active, torrent: Torrent) -> bool:
        half_way = torrent.progress >= 0.5
        match self._core.fate(ticket):
            case "download_stalled" if half_way:
                self._give_up(ticket, len(_candidates(ticket)))
            case "failover" if half_way and not active.failed_over:
                active.failed_over = True
                self._core.torrents.remove(active.info_hash)
                self._fail_over(ticket, active)
            case _:
                return False
        return True

    def _fail_over(self, ticket: Ticket, active: _Active) -> None:
        candidates = _candidates(ticket)
        if not candidates:
            self._give_up(ticket, 0)
            return
        active.candidate_idx += 1
        if active.candidate_idx >= len(candidates):
            active.candidate_idx, active.failover_round = 0, active.failover_round + 1
        if active.failover_round > _ROUNDS:
            self._give_up(ticket, len(candidates))
            return
        active.info_hash = _hash(candidates[active.candidate_idx])
        active.last_pct, active.started_ns = 0.0, now_ns()
        torrent, _ = self._add(ticket, active.info_hash)
        active.fooled = torrent is not None and self._core.torrents.early(torrent)
        self._write(ticket, active, torrent)

    def _give_up(self, ticket: Ticket, tried: int) -> None:
        self.forget(ticket.id)
        hours = math.ceil(tried * 2.6)
        error = (
            f"Download stalled: tried {tried} candidates over {_ROUNDS} rounds (~{hours} hours)"
            if tried
            else "Download stalled: no candidates available"
        )
        self._core.tickets.put(ticket.id, states.failed(error, retryable=False))

    def _finish(self, ticket: Ticket, active: _Active, torrent: Torrent) -> None:
        self.forget(ticket.id)
        if active.candidate_idx >= len(_candidates(ticket)):
            self._core.tickets.put(ticket.id, states.failed(_NO_CANDIDATE, retryable=True))
        else:
            self._pipeline.submit(ticket, torrent, zeros=not torrent.done)

    def _write(self, ticket: Ticket, active: _Active, torrent: Torrent | None) -> None:
        """Rewrite `downloading`, even over a cancel; that loses the candidates."""
        percent = 0.0 if torrent is None else round(torrent.progress * 100.0, 2)
        if percent > active.last_pct:
            active.last_pct, active.last_pct_ns = percent, now_ns()
        state = {
            "type": "downloading",
            "info_hash": active.info_hash,
            "progress_pct": percent,
            "speed_bps": 0 if torrent is None else torrent.speed_bps,
            "eta_secs": None if torrent is None else torrent.eta_s,
            "started_at": zulu_form(active.started_ns),
            "candidate_idx": active.candidate_idx,
            "failover_round": active.failover_round,
            "last_progress_pct": active.last_pct,
            "last_progress_at": zulu_form(active.last_pct_ns),
            "candidates": _candidates(ticket),
        }
        announce = active.beats % _ANNOUNCE_EVERY == 0
        active.beats += 1
        self._core.tickets.put(ticket.id, state, announce=announce)


def _candidates(ticket: Ticket) -> list[Mapping[str, object]]:
    """The candidates in the ticket's state; none once another state was written over it."""
    if ticket.kind not in {"auto_approved", "approved", "downloading"}:
        return []
    shown = ticket.state.get("candidates")
    return list(shown) if isinstance(shown, list) else []


def _hash(candidate: Mapping[str, object]) -> str:
    return str(candidate.get("info_hash", "none"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
