"""How many first choices are right, and how many forbidden releases are chosen at any attempt.

`python -m bench.choosing FILE.jsonl`, or `--generated COUNT [SEED]`.

A row: {"wanted": {artist, album, year, type, tracks, minutes}, "candidates": [{title, size_mb,
seeders, files?}], "right": acceptable first choices, best first ([]: nothing may be chosen),
"never": releases that no attempt may choose}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.release_lists import lists
from shared.choosing.choice import Judged, judge
from shared.choosing.model import Release, Wanted

Row = Mapping[str, Any]


def judged(row: Row) -> list[Judged]:
    """The candidates of a row, in the order of the attempts."""
    wanted = row["wanted"]
    return judge(
        Wanted(
            artist=wanted["artist"],
            album=wanted["album"],
            year=wanted["year"],
            tracks=wanted["tracks"],
            seconds=wanted["minutes"] * 60,
            kind=wanted["type"],
        ),
        [
            Release(
                title=each["title"],
                size_bytes=int(each["size_mb"] * 1_000_000),
                seeders=each["seeders"],
                audio_files=each.get("files"),
            )
            for each in row["candidates"]
        ],
    )


def _rows(arguments: list[str]) -> list[Row]:
    match arguments:
        case ["--generated", count, *seed]:
            return list(lists(int(count), int(*seed or ["1"])))
        case [name]:
            lines = Path(name).read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
    sys.exit("python -m bench.choosing FILE.jsonl | --generated COUNT [SEED]")


def main() -> None:
    """Print each wrong row with the reasons, and the counts."""
    rows = _rows(sys.argv[1:])
    right = wrong_taken = 0
    for number, row in enumerate(rows):
        tried = [each for each in judged(row) if each.may_be_taken or each.is_last_resort]
        first = next((each.place for each in tried if each.may_be_taken), None)
        good = first in row["right"] if row["right"] else first is None
        never = [each.place for each in tried if each.place in row["never"]]
        right += good
        wrong_taken += bool(never)
        if not good or never:
            print(
                f"{number}: {row['wanted']}\n   first {first}, right {row['right']}, never {never}"
            )
            for each in judged(row):
                reasons = "; ".join(refusal.sentence for refusal in each.refusals)
                print(f"   {each.place} {each.release.title}: {reasons or 'accepted'}")
    print(f"{right} of {len(rows)} first choices right, {wrong_taken} forbidden ones chosen")


if __name__ == "__main__":
    main()
