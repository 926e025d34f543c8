"""Where SQL may say what: moves in one file, and no state as a literal."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from shared.db import download_moves, moves
from shared.db.queries import load_queries
from shared.states import DownloadState, ScanState, ServerRequestState, Stage

ROOT = Path(__file__).parents[2]
SETS_STAGE = re.compile(
    r"UPDATE\s+queue_items\b.*?\bSET\b(?:(?!\bWHERE\b|\bFROM\b).)*?\bstage\s*=", re.S
)
SETS_STATE = re.compile(
    r"UPDATE\s+tickets\b.*?\bSET\b(?:(?!\bWHERE\b|\bFROM\b).)*?\bstate\s*=", re.S
)
SETS_DUE = re.compile(
    r"UPDATE\s+queue_items\b(?:(?!\bWHERE\b).)*?\bdue_at\s*=(?:(?!\bWHERE\b).)*", re.S
)
SQL = re.compile(r"\b(?:SELECT|UPDATE|INSERT|DELETE|WHERE|AND)\b")
INSERTS = re.compile(r"INSERT\s+INTO\s+(queue_items|tickets)\b")
STATES = "|".join([*Stage, *DownloadState, *ScanState, *ServerRequestState])
LITERAL = re.compile(rf"\bsta(?:g|t)e\s*(?:=|<>|IN)\s*\(?\s*'(?:{STATES})'")


@cache
def queries() -> tuple[tuple[str, str], ...]:
    """Every text with SQL of the product, but for migrations, with the file that it is in."""
    return tuple((name, text) for name, text in _texts() if SQL.search(text))


def _texts() -> Iterator[tuple[str, str]]:
    for folder in ("services", "shared"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = str(path.relative_to(ROOT))
            if "migrations" in name or name.startswith("services/local/torrentino"):
                continue
            if path.suffix == ".sql":
                yield name, path.read_text(encoding="utf-8")
            elif path.suffix == ".py":
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        yield name, node.value


@pytest.mark.parametrize(
    ("pattern", "home"),
    [(SETS_STAGE, "shared/db/moves.sql"), (SETS_STATE, "shared/db/download_moves.sql")],
    ids=["items", "downloads"],
)
def test_moves_stand_in_one_file(pattern: re.Pattern[str], home: str) -> None:
    """A statement that sets a stage, or a download's state, stands with all others."""
    assert {name for name, text in queries() if pattern.search(text)} == {home}


def test_items_and_downloads_begin_in_one_place() -> None:
    """So does the statement that inserts one."""
    found = {(name, table) for name, text in queries() for table in INSERTS.findall(text)}
    assert found == {
        ("shared/db/moves.sql", "queue_items"),
        ("shared/db/download_moves.sql", "tickets"),
    }


def test_every_wait_has_its_length() -> None:
    """What sets `due_at` of an item sets `wait_s`: the reaper takes a longer wait for an error."""
    assert any(SETS_DUE.search(text) for _, text in queries())
    assert [
        (name, update)
        for name, text in queries()
        for update in SETS_DUE.findall(text)
        if "wait_s" not in update
    ] == []


def test_no_stage_is_a_literal_in_sql() -> None:
    """Sets of stages come from shared/states.py: as a parameter, or by `in_sql` for an index."""
    assert [(name, text) for name, text in queries() if LITERAL.search(text)] == []


def test_what_is_looked_for_would_be_found() -> None:
    """The patterns see the statements that they are for."""
    assert SETS_STAGE.search("UPDATE queue_items q\n   SET reason = 'x', stage = $1 FROM t")
    assert not SETS_STAGE.search("UPDATE queue_items SET due_at = now() WHERE stage = $1")
    assert SETS_STATE.search("UPDATE tickets t SET state = $1")
    assert not SETS_STATE.search("UPDATE tickets SET remote_state = $1 WHERE state = $2")
    assert LITERAL.search("q.stage IN ('queued', 'retry_wait')")


@pytest.mark.parametrize("module", [moves, download_moves], ids=lambda module: module.__name__)
def test_every_named_query_is_used_by_its_module(module: ModuleType) -> None:
    """A query without a function would be dead."""
    path = Path(str(module.__file__))
    used = set(re.findall(r'SQL\["(\w+)"\]', path.read_text(encoding="utf-8")))
    assert used == set(load_queries(path.with_suffix(".sql")))
