"""Tables that fit the terminal: columns that do not fit are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from shared.untrusted import printable

_GAP = 2


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column and its width, in cells.

    `rank`: of columns that do not all fit, the one with the highest is left out first. `least`: the
    smallest width that is of use, unless its longest cell is shorter. `wraps`: a long cell takes
    more lines instead of ending in an ellipsis.
    """

    name: str
    rank: int
    least: int
    wraps: bool = False


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> Table:
    """A table of at most `width` cells.

    Texts are shown as they are: what a terminal or rich's markup would obey is escaped.
    """
    shown = [[printable(cell, keep="\n") for cell in row] for row in rows]
    wanted = [
        max([cell_len(column.name), *(_longest_line(row[place]) for row in shown)])
        for place, column in enumerate(columns)
    ]
    widths = _widths(columns, wanted, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for place, cells in widths.items():
        table.add_column(
            columns[place].name,
            width=cells,
            no_wrap=not columns[place].wraps,
            overflow="fold" if columns[place].wraps else "ellipsis",
        )
    for row in shown:
        table.add_row(*(escape(row[place]) for place in widths))
    return table


def _longest_line(cell: str) -> int:
    return max((cell_len(line) for line in cell.splitlines()), default=0)


def _widths(columns: Sequence[Column], wanted: Sequence[int], width: int) -> dict[int, int]:
    """The width of each column that is shown, by its place."""
    least = [min(column.least, want) for column, want in zip(columns, wanted, strict=True)]
    by_rank = sorted(range(len(columns)), key=lambda place: columns[place].rank)
    while len(by_rank) > 1 and _total(least[place] for place in by_rank) > width:
        by_rank.pop()
    cells = {place: least[place] for place in sorted(by_rank)}
    left = width - _total(cells.values())
    for place in by_rank:
        more = max(0, min(left, wanted[place] - cells[place]))
        cells[place] += more
        left -= more
    return cells


def _total(widths: Iterable[int]) -> int:
    listed = list(widths)
    return sum(listed) + _GAP * (len(listed) - 1)
