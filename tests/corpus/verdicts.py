"""What the verification says of a case, with the tolerance that the settings have by default."""

from __future__ import annotations

from pathlib import Path

from shared.errors import CorruptAudio
from shared.media.tools import AudioTools
from shared.media.verify import verify
from tests.corpus.case import Case

_TOLERANCE_S = 6.0


async def verdict_on(case: Case, folder: Path, tools: AudioTools) -> tuple[str, str]:
    """ "whole" or the rule that refuses the file, and the reason in words."""
    path = case.make(folder)
    try:
        await verify(path, expected_ms=case.expected_ms, tolerance_s=_TOLERANCE_S, tools=tools)
    except CorruptAudio as corrupt:
        return str(corrupt.evidence["rule"]), corrupt.message
    return "whole", ""
