"""Each file of the corpus gets its verdict from the ffmpeg in use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shared.media.tools import find_tools, release_of
from tests.corpus import cases
from tests.corpus.case import Case
from tests.corpus.verdicts import verdict_on

ROOT = Path(__file__).parents[2]
CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_verdict(case: Case, tmp_path: Path) -> None:
    """What a careful listener would say of the file."""
    tools = find_tools()
    verdict, why = await verdict_on(case, tmp_path, tools)
    if release_of(tools.ffmpeg) < case.since:
        assert verdict != "whole", "the case can do without `since`"
    else:
        assert verdict == case.verdict, why


def test_the_table_has_each_file() -> None:
    """`make audio-table` has been run, and no verdict in it is wrong."""
    page = (ROOT / "docs/audio-table.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0] for line in lines] == [f"| {case.name}" for case in CASES]
    assert " files, 0 verdicts in bold" in page


def test_names_are_unique() -> None:
    """A line of the table names one file."""
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
