"""Tables fit the terminal by leaving columns out, never by writing one letter a line."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from services.tables import Column, fitting

ID = "454bdba0-3e99-4055-9102-863cab7168d6"
COLUMNS = (
    Column(name="id", rank=0, least=36),
    Column(name="track", rank=1, least=14),
    Column(name="artist", rank=3, least=10),
    Column(name="waits for", rank=2, least=20),
)
ROW = (ID, "A song with quite a long title", "Somebody", "Torrentino to download the torrent")


def printed(*rows: tuple[str, ...], width: int, columns: tuple[Column, ...] = COLUMNS) -> list[str]:
    """The lines of the table."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(fitting(columns, rows, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (36, ["id"]),
        (60, ["id", "track"]),
        (80, ["id", "track", "waits for"]),
        (140, ["id", "track", "artist", "waits for"]),
    ],
)
def test_columns_are_left_out_until_the_rest_fits(width: int, names: list[str]) -> None:
    """By rank; each row is one line within the width, with its id whole."""
    head, *rows = printed(ROW, ROW, width=width)
    assert [name for name in ("id", "track", "artist", "waits for") if name in head] == names
    assert len(rows) == 2
    assert all(row.startswith(ID) for row in rows)
    assert all(cell_len(line) <= width for line in (head, *rows))


def test_room_that_is_left_goes_to_the_first_columns() -> None:
    """The track has all it wants before the last column grows."""
    _, row = printed(ROW, width=100)
    assert ROW[1] in row
    assert row.rstrip().endswith("…")


def test_a_cell_that_wraps_loses_nothing() -> None:
    """It takes more lines at words, and keeps its own line breaks."""
    columns = (COLUMNS[0], Column(name="why", rank=1, least=10, wraps=True))
    _, *lines = printed((ID, "one two three four\nfive"), width=50, columns=columns)
    assert [line[36:].strip() for line in lines] == ["one two", "three four", "five"]


def test_texts_are_no_commands() -> None:
    """Neither rich's markup nor the terminal's: both are shown as they are."""
    _, row = printed((ID, "[red]\x1b[2J", "", ""), width=80)
    assert "[red]\\x1b[2J" in row


def test_wide_characters_count_as_two() -> None:
    """A name in kanji takes twice the cells."""
    lines = printed((ID, "東京事変" * 10, "", "x"), width=70)
    assert all(cell_len(line) <= 70 for line in lines)
    assert len(lines) == 2
