"""Each file of the corpus gets its verdict from the ffmpeg in use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shared.media.tools import find_tools, release_of
from tests.corpus import cases
from tests.corpus.case import Case
from tests.corpus.verdicts import verdict_on

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


def test_names_are_unique() -> None:
    """A line of the table names one file."""
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
