"""Faults on demand. Tests change a `Faults` at run time, directly or over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

FATES: frozenset[str] = frozenset(
    {
        "complete",  # the default
        "not_found",  # acquisition_failed "No suitable candidates found"
        "search_error",  # acquisition_failed "Search failed: ...", with an apikey in the text
        "needs_approval",  # confidence 0.1; `approve` lets it complete
        "download_stalled",  # failed "Download stalled: ..." half-way, retryable false
        "add_failed",  # failed "All N candidates failed to add. ...", retryable true
        "conversion_failed",  # failed "Conversion failed: ...", retryable false
        "process_failed",  # as usual, but `/pipeline/process` ends failed "Conversion failed: ..."
        "multi_file",  # EISDIR: failed "Placement failed: ...", 0-byte .converted left
        "stuck_downloading",  # progress stops half-way for as long as the fate is set
        "stuck_converting",  # stays converting, in no pool
        "empty_hash",  # info_hash "": the monitor follows the client's first torrent
        "pending_retry",  # a transient search error once, then as usual
        "failover",  # half-way, once, it starts again at 0 with another hash
        "no_files",  # completed with files_placed 0
        "size_mismatch",  # completed, but the file is shorter than final_size_bytes says
        "unknown_state",  # a state type that clients do not know
        "zeros",  # its torrent's check is taken for the end: completed, with a file of zeros
        "dead_link",  # the link of its .torrent is not found: 502
        "no_torrent",  # that link serves a page: 500
    }
)


@dataclass
class Faults:
    """The faults of one stand-in; by default none.

    Each request that a count hits reduces it by one. Titles are casefolded. Where no ticket names
    the title (`/search`, torrents added by hand), any run of words of the torrent's title matches;
    `not_found`, `add_failed`, `stuck_downloading`, `multi_file`, `dead_link`, `no_torrent` and
    `spoiled` work there.
    """

    database_locked: int = 0  # next n under /api/v1/tickets: 500 "database is locked", no effect
    database_locked_after_effect: int = 0  # next n POST or DELETE there: effect, then that 500
    drop_before: int = 0  # next n under /api/v1: connection closed, no effect
    drop_after: int = 0  # next n under /api/v1: effect, then connection closed without an answer
    only: str = ""  # the four counts hit only this, in `Standin.requests`' form: "POST /tickets"
    unauthorized: bool = False  # 401 with an empty body to everything under /api/v1
    html: bool = False  # 200 text/html to every GET and POST under /api/v1, without effect
    delay_s: float = 0.0  # delays each answer under /api/v1, after its effect; 0 ends it
    delay_only: str = ""  # the delay hits only this, in the form of `only`
    down: bool = False  # 503 {"error": ...} to everything but /_standin
    # The torrent client is unavailable: 500 to /torrents except its status; tickets fail to add,
    # and downloads make no progress.
    client_away: bool = False
    client_configured: bool = True  # False: status configured:false, 503 to /torrents
    searcher_away: bool = False  # 500 to /search; tickets find nothing, "Search failed: ..."
    searcher_configured: bool = True  # False: status configured:false, 503 to /search
    # indexer -> message in the answer of /search; it lists nothing, and if all fail it is a 500
    indexer_errors: dict[str, str] = field(default_factory=dict)
    dead_links: bool = False  # the link of every .torrent is not found
    # title of a track or an album, as the ticket expects it -> one of FATES
    fates: dict[str, str] = field(default_factory=dict)
    # The rest is for songs; a torrent of several files is made with the files it needs.
    # title -> files delivered instead, one for each ticket in turn, then the song's own;
    # a retry of the same ticket gets the same file
    substitute: dict[str, list[Path]] = field(default_factory=dict)
    # title -> what the best candidate delivers while this is set; the second has the song
    spoiled: dict[str, Path] = field(default_factory=dict)
    # title -> files put beside the audio, counted in files_placed and final_size_bytes
    extra_files: dict[str, list[Path]] = field(default_factory=dict)

    def take(self, count: str, request: str) -> bool:
        """Reduce the named count by one, if it is not 0 and it hits `request`; whether it did."""
        left: int = getattr(self, count)
        if left <= 0 or self.only not in {"", request}:
            return False
        setattr(self, count, left - 1)
        return True

    def fate(self, titles: tuple[str, ...]) -> str:
        """The fate set for the first of these casefolded titles that has one."""
        return next((self.fates[title] for title in titles if title in self.fates), "complete")

    def next_substitute(self, titles: tuple[str, ...]) -> Path | None:
        """Take the next file to deliver instead of the song's own, if any."""
        waiting = (self.substitute[title] for title in titles if self.substitute.get(title))
        return next((files.pop(0) for files in waiting), None)

    def spoiler(self, titles: tuple[str, ...]) -> Path | None:
        """What the best candidate for a ticket of these titles delivers instead, if anything."""
        return next((self.spoiled[title] for title in titles if title in self.spoiled), None)

    def extras(self, titles: tuple[str, ...]) -> list[Path]:
        """The further files to deliver with a ticket of these titles."""
        return [path for title in titles for path in self.extra_files.get(title, [])]

    def update(self, changes: Mapping[str, object]) -> None:
        """Set the named fields from JSON; titles are casefolded on the way.

        Raises:
            ValueError: an unknown field or fate, or a value of the wrong type; nothing is set.
        """
        unknown = set(changes) - {each.name for each in fields(self)}
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        try:
            merged = _ADAPTER.validate_python(asdict(self) | dict(changes))
        except ValidationError as exc:
            raise ValueError(str(exc)) from exc
        if wrong := set(merged.fates.values()) - FATES:
            raise ValueError(f"no such fate: {', '.join(sorted(wrong))}")
        for name in changes:
            setattr(self, name, _casefolded(getattr(merged, name)))

    def json(self) -> dict[str, object]:
        """All fields as JSON can hold them."""
        shown: dict[str, object] = _ADAPTER.dump_python(self, mode="json")
        return shown


def _casefolded(value: object) -> object:
    if isinstance(value, dict):
        return {str(key).casefold(): item for key, item in value.items()}
    return value


_ADAPTER: TypeAdapter[Faults] = TypeAdapter(Faults)
