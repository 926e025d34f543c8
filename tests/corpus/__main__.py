"""`make audio-table`: every case on every ffmpeg, as docs/audio-table.md.

The ffmpeg of the wheel, that of PATH, and those in the folders that are named.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.media.tools import AudioTools, from_wheel, release_of
from tests.corpus import cases
from tests.corpus.case import Case
from tests.corpus.verdicts import verdict_on

_PAGE = """# Verdicts on audio files

What the verification says of each file of the regression corpus (`tests/corpus`), by release of
ffmpeg. The tests make the files. `make audio-table` makes this page; `ARGS=FOLDER` names a further
ffmpeg.

*whole*: the file is accepted. Otherwise the rule that refuses it: `decode_errors` (a decoder
reports damage), `truncated` (audio is missing), `wrong_length` (it is not the catalog's length, or
not the announced one), or what the file is (`not_audio`, `codec_not_allowed`, `video` and so on).
The catalog's length is in seconds; "-": it has none. In bold: a verdict that is not the right one.

{files} files, {wrong} verdicts in bold. A release that cannot decode a format refuses it.

| file | catalog | {heads} |
|---|---|{rule}|
{rows}
"""

Verdicts = Mapping[str, str]


def _found(folders: Sequence[Path]) -> dict[str, AudioTools]:
    """The programs by their release; of two with one release, the first."""
    on_path = (shutil.which("ffmpeg"), shutil.which("ffprobe"))
    pairs = [on_path, *((str(each / "ffmpeg"), str(each / "ffprobe")) for each in folders)]
    several = [AudioTools(ffmpeg=one, ffprobe=two) for one, two in pairs if one and two]
    if wheel := from_wheel():
        several.append(wheel)
    found: dict[str, AudioTools] = {}
    for tools in several:
        found.setdefault(".".join(map(str, release_of(tools.ffmpeg))), tools)
    return dict(sorted(found.items()))


async def _judged(case: Case, found: Mapping[str, AudioTools]) -> Verdicts:
    with tempfile.TemporaryDirectory(prefix="audio-table-") as folder:
        return {
            name: (await verdict_on(case, Path(folder), tools))[0] for name, tools in found.items()
        }


def _row(case: Case, verdicts: Verdicts) -> str:
    length = "-" if case.expected_ms is None else f"{case.expected_ms / 1000:g}"
    shown = (
        verdict if _right(case, name, verdict) else f"**{verdict}**"
        for name, verdict in verdicts.items()
    )
    return f"| {case.name} | {length} | {' | '.join(shown)} |"


def _right(case: Case, name: str, verdict: str) -> bool:
    release = tuple(int(part) for part in name.split("."))
    return verdict == case.verdict if release >= case.since else verdict != "whole"


async def table(folders: Sequence[Path]) -> tuple[str, int]:
    """The page, and how many verdicts are not right."""
    found = _found(folders)
    rows, wrong = [], 0
    for case in cases():
        verdicts = await _judged(case, found)
        wrong += sum(not _right(case, name, verdict) for name, verdict in verdicts.items())
        rows.append(_row(case, verdicts))
    heads = " | ".join(f"ffmpeg {name}" for name in found)
    page = _PAGE.format(
        files=len(rows),
        wrong=wrong,
        heads=heads,
        rule="|".join("---" for _ in found),
        rows="\n".join(rows),
    )
    return page, wrong


def main() -> int:
    """Write the page; 1 if a verdict is not right."""
    parser = argparse.ArgumentParser(prog="audio-table", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="folders with ffmpeg and ffprobe")
    parser.add_argument("--out", type=Path, default=Path("docs/audio-table.md"))
    arguments = parser.parse_args()
    page, wrong = asyncio.run(table(arguments.folders))
    arguments.out.write_text(page, encoding="utf-8")
    sys.stdout.write(f"{arguments.out}: {wrong} verdicts are not right\n")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
