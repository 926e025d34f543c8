"""The endings of audio files: one table, and what it says of a name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from shared.media.extensions import (
    AUDIO,
    AUDIO_OR_VIDEO,
    LOSSLESS,
    LOSSY,
    PLAYABLE,
    extension_of,
    without_appended,
)

ROOT = Path(__file__).parents[2]
# So many endings in one literal are a list of them; our formats and demuxers are fewer.
A_LIST = 6
# Lists of words, not of endings: they are what titles of releases and of songs say.
OF_TITLES = {Path("shared/choosing/vocabulary.py"), Path("shared/matching/vocabulary.py")}
# A list of ffmpeg's readers, by ffmpeg's names.
OF_READERS = {Path("shared/media/complaints.py")}


def test_every_ending_is_in_the_table_once() -> None:
    """Lossless and lossy exclude each other, and the catalog server plays audio only."""
    assert not LOSSLESS & LOSSY
    assert PLAYABLE < AUDIO
    assert {"mp4"} == AUDIO_OR_VIDEO - AUDIO


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("Album/CD1/03 Song.FLAC", "flac"),
        ("v1.2/Song", ""),
        ("flac", ""),
        ("Song.", ""),
        (".mp3", "mp3"),
    ],
)
def test_the_ending_is_of_the_last_name(path: str, ending: str) -> None:
    """A dot in a folder, or a name without one, is no ending."""
    assert extension_of(path) == ending


def test_the_name_before_torrentino_placed_it() -> None:
    """Torrentino appends `.converted`, whether it converted the file or not."""
    assert without_appended("01 Song.mp3.Converted") == "01 Song.mp3"
    assert without_appended("01 Song.mp3") == "01 Song.mp3"


def test_no_other_module_lists_endings() -> None:
    """A second list would drift from the first; the stand-in's are another program's."""
    found = [
        f"{path}:{line}"
        for path, line in _lists()
        if path not in OF_TITLES | OF_READERS and not path.is_relative_to("services/local")
    ]
    tables = {"shared/media/extensions.py", "shared/media/formats.py"}
    assert {each.partition(":")[0] for each in found} == tables


@pytest.mark.parametrize(
    "code",
    [
        '{"flac", "mp3", "ogg", "m4a", "wav", "wma"}',
        '(".flac", ".mp3", ".ogg", ".m4a", ".wav", ".wma")',
        '"flac mp3 ogg m4a wav wma".split()',
        r're.compile(r"\.(flac|mp3|ogg|m4a|wav|wma)$")',
        '{"flac": 1, "mp3": 2, "ogg": 3, "m4a": 4, "wav": 5, "wma": 6}',
    ],
)
def test_a_list_is_found_however_it_is_written(code: str) -> None:
    """The check above cannot pass for want of seeing a list."""
    assert list(_lists_in(ast.parse(code)))


def _lists() -> Iterator[tuple[Path, int]]:
    for folder in ("services", "shared", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if _count(re.findall(r"\w+", text)) >= A_LIST:
                yield from ((path.relative_to(ROOT), line) for line in _lists_in(ast.parse(text)))


def _lists_in(tree: ast.Module) -> Iterator[int]:
    """The lines of the literals that name several endings."""
    for node in ast.walk(tree):
        match node:
            case ast.Set(elts=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                texts = [_text(part) for part in parts]
            case ast.Dict(keys=keys):
                texts = [_text(key) for key in keys]
            case ast.Constant(value=str(text)):
                texts = re.findall(r"\w+", text)
            case _:
                continue
        if _count(texts) >= A_LIST:
            yield node.lineno


def _count(texts: Iterable[str]) -> int:
    """How many endings are among the texts."""
    return len({text.strip(".").lower() for text in texts} & AUDIO_OR_VIDEO)


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
