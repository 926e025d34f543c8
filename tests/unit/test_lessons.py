"""docs/lessons.md says the truth about the tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (L-\d\d) \| (.+?) \| (.+) \|$", re.MULTILINE)
_ALL = [f"L-{number:02d}" for number in range(1, 59)]


def _rows() -> list[tuple[str, str, list[str]]]:
    page = (_ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")
    return [(id_, rule, re.findall(r"`(\S+)`", tests)) for id_, rule, tests in _ROW.findall(page)]


@cache
def _docstrings() -> dict[str, str]:
    """What each test of a file that names a lesson says of itself, by `file::name`."""
    found = {}
    for path in (_ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text if "L-" in text else "")):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(_ROOT).as_posix()}::{node.name}"
                found[name] = ast.get_docstring(node) or ""
    return found


def test_all_58_are_there_once() -> None:
    """No lesson is left out, and none is told twice."""
    assert [id_ for id_, _, _ in _rows()] == _ALL


def test_each_has_its_test_or_a_reason() -> None:
    """A test that is named exists and has the number; without one the page says why."""
    said = _docstrings()
    for id_, rule, tests in _rows():
        assert tests or rule.startswith("Cannot occur"), f"{id_}: neither a test nor a reason"
        for test in tests:
            assert id_ in said.get(test, ""), f"{id_}: {test} is no test of it"


def test_no_test_is_about_a_lesson_that_is_none() -> None:
    """A number in a test is one of the page."""
    numbers = {number for text in _docstrings().values() for number in re.findall(r"L-\d+", text)}
    assert numbers <= set(_ALL)
