"""What the command line prints: lines and tables for a terminal, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rich.console import Console

from services import words
from services.client import Json
from services.tables import Column, fitting
from shared.untrusted import printable

console = Console(highlight=False, markup=False)
errors = Console(highlight=False, markup=False, stderr=True, soft_wrap=True)

# An id that is cut is of no use; everything else may be cut.
_ID = Column(name="id", rank=0, least=36)
_ITEMS = (
    _ID,
    Column(name="track", rank=1, least=14),
    Column(name="artist", rank=4, least=10),
    Column(name="stage", rank=3, least=11),
    Column(name="position", rank=5, least=8),
    Column(name="waits for", rank=2, least=20),
)
_TIMELINE = (
    Column(name="at", rank=2, least=19),
    Column(name="service", rank=3, least=14),
    Column(name="stage", rank=0, least=14),
    Column(name="reason", rank=1, least=20, wraps=True),
)
_CHOICES = (
    _ID,
    Column(name="track", rank=2, least=14),
    Column(name="decided at", rank=3, least=10),
    Column(name="candidates", rank=1, least=20, wraps=True),
)


def print_answer(answer: Json, *, as_json: bool) -> None:
    """The answer to a request: its result in a line, and its items."""
    if as_json:
        print_json(answer)
        return
    print_line(words.answer(answer))
    items = answer.get("items") or ([answer["item"]] if answer.get("item") else [])
    if items:
        print_items(items)


def print_json(value: Json) -> None:
    """A value as the API answered it."""
    print(json.dumps(value))


def print_lines(lines: Iterable[str]) -> None:
    """Lines, each as it is."""
    for line in lines:
        print_line(line)


def print_line(line: str) -> None:
    """A line as it is, whatever a terminal would obey in it."""
    console.print(printable(line), soft_wrap=True)


def print_error(line: str) -> None:
    """A line on standard error."""
    errors.print(printable(line))


def print_items(items: Sequence[Json]) -> None:
    """Items as a table."""
    rows = [
        (
            item["id"],
            item["track_name"],
            item["artist_name"] or "",
            item["stage"],
            "" if item["queue_position"] is None else str(item["queue_position"]),
            words.situation(item),
        )
        for item in items
    ]
    console.print(fitting(_ITEMS, rows, width=console.width))


def print_timeline(entries: Sequence[Json]) -> None:
    """The moves of an item as a table."""
    rows = [
        (
            words.clock_time(entry["at"]),
            entry["service"],
            entry["stage"] or entry.get("decision", ""),
            entry["reason"] or "",
        )
        for entry in entries
    ]
    console.print(fitting(_TIMELINE, rows, width=console.width))


def print_choices(items: Sequence[Json]) -> None:
    """Items that need a decision, with their candidates, as a table."""
    rows = [
        (
            item["id"],
            item["track_name"],
            item["decided_at"],
            "\n".join(str(each.get("file") or each.get("title")) for each in item["candidates"]),
        )
        for item in items
    ]
    console.print(fitting(_CHOICES, rows, width=console.width))


def print_rest(page: Json) -> None:
    """How to see the rest of a list, if there is more."""
    if line := words.rest(page):
        print_line(line)
