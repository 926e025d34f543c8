"""Every path and every name that a page shows in code exists in the repository.

The decision records are history: their links must resolve (tests/unit/test_repository.py), but a
name in them may be of another time.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
ROOMS = ("services", "shared", "tests", "bench", "deploy", "docs", ".ci")
# Folders whose text may define a name that is no Python symbol: a column, a variable, a log event.
_TEXTS = ("services", "shared", "deploy", "bench", ".ci")
_TEXT_FILES = ("Makefile", "docker-compose.yml", ".env.example", "pyproject.toml")
# Files outside the repository: one of another program, and one that a page makes.
FOREIGN = {"config.toml", "settings.tar"}
_SQL_FUNCTIONS = {"now"}
# Of the catalog server's source, for its author: docs/bridge.md.
OF_THE_SERVER = {
    *("set_track_audio_uri", "recompute_album_availability", "recompute_artist_availability"),
    *("get_album_artist_ids", "update_availability", "emit_catalog_event", "frontend_dir_path"),
    *("mark_request_completed", "complete_requests_for_album", "send_download_notification"),
}

_PATH = re.compile(rf"(?<![\w/.$<-])(?:{'|'.join(re.escape(room) for room in ROOMS)})/[\w./<>*-]*")
_SPAN = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w.<>-]+\.(?:py|sql|md|yml|lock|conf|toml|sh)")
_CALL = re.compile(r"([A-Za-z_][\w.]*)\((.*)\)")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_SUBJECT = re.compile(
    r"(?:pezzottify\.download\.)?(?:event\.(\w+\.\w+)|work\.(\w+)|(?:request|command)\.\w+)"
)
_CLASS = re.compile(r"_?[A-Z]\w*[a-z]\w*")
_WORD = re.compile(r"_?[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
# A symbol, and the file that has it: "`path.py` (`name`, `name`)", "`name` in `path.py`".
_OF_FILE = re.compile(r"`([^`\n]+\.py)` \(((?:`[\w.]+`(?:, )?)+)\)")
_IN_FILE = re.compile(r"`([\w.]+?)(?:\(\))?`\s+in\s+(?:\[|`)([\w./-]+\.py)")


class Names:
    """The Python names of the repository, read from its source without importing it."""

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = defaultdict(set)
        self.members: dict[str, set[str]] = defaultdict(set)
        self.functions: set[str] = set()
        for room in ROOMS:
            for path in sorted((ROOT / room).rglob("*.py")):
                self._read(path)

    @property
    def top_level(self) -> set[str]:
        """Every name that some module defines."""
        return set().union(*self.modules.values())

    def _read(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = path.relative_to(ROOT).as_posix()
        self.modules[module] = {name for node in tree.body for name in _defined(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.add(node.name)
            elif isinstance(node, ast.ClassDef):
                self.members[node.name] |= {name for each in node.body for name in _defined(each)}

    def in_file(self, path: str, name: str) -> bool:
        """Whether this file defines `name` or, of a class in it, `Class.member`."""
        head, _, member = name.partition(".")
        return head in self.modules.get(path, set()) and (
            not member or member in self.members[head]
        )

    def resolves(self, dotted: str) -> bool:
        """Whether `Class.member` or `package.module.name` exists."""
        *heads, last = dotted.split(".")
        if len(heads) == 1 and last in self.members.get(heads[0], set()):
            return True
        folder = "/".join(heads)
        if any(_exists(f"{folder}/{last}{end}") for end in (".py", "")):
            return heads[0] in ROOMS
        return any(
            last in names
            for path, names in self.modules.items()
            if f"/{path}".endswith(f"/{folder}.py")
        )


def _defined(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign():
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.If():
            yield from (name for each in node.body for name in _defined(each))
        case _:
            return


@cache
def names() -> Names:
    return Names()


@cache
def words() -> frozenset[str]:
    """Every word in the code, its SQL and its configuration, in lower case; dotted names too."""
    files = [ROOT / name for name in _TEXT_FILES]
    for room in _TEXTS:
        files += [
            path
            for path in (ROOT / room).rglob("*")
            if path.is_file() and path.suffix in {".py", ".sql", ".conf", ".yml", ".sh", ""}
        ]
    text = "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files)
    text = text.lower()
    return frozenset(re.findall(r"\w+", text)) | frozenset(re.findall(r"\w+(?:\.\w+)+", text))


@cache
def columns() -> frozenset[str]:
    """`table.column` for every column that a migration names."""
    versions = ROOT / "shared/db/migrations/versions"
    sql = "\n".join(path.read_text(encoding="utf-8") for path in sorted(versions.glob("*.sql")))
    found = set()
    for table, body in re.findall(r"^CREATE TABLE (\w+) \((.*?)^\);", sql, re.M | re.S):
        found |= {f"{table}.{column}" for column in re.findall(r"^    ([a-z]\w*) ", body, re.M)}
    for table, body in re.findall(r"^ALTER TABLE (\w+)(.*?);", sql, re.M | re.S):
        added = re.findall(r"ADD (?:COLUMN )?(?:IF NOT EXISTS )?([a-z]\w*) ", body)
        found |= {f"{table}.{column}" for column in added}
    return frozenset(found)


def _exists(path: str) -> bool:
    """Whether this file or folder is there; `<name>` and `*` stand for any name."""
    pattern = re.sub(r"<[\w ]+>", "*", path.rstrip("/"))
    return any(ROOT.glob(pattern)) if "*" in pattern else (ROOT / pattern).exists()


def unresolved(text: str) -> list[str]:
    """The paths and names in a page's code that the repository does not have."""
    blocks = re.findall(r"^```.*?^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    missing = [path for block in blocks for path in _missing_paths(block)]
    for paragraph in re.split(r"\n\n|\n(?=[|-] )", prose):
        missing += _missing_of_file(paragraph)
        folder = ""
        for span in _SPAN.findall(paragraph):
            missing += _missing_paths(span)
            if _PATH.fullmatch(span):
                folder = span.rpartition("/")[0]
            elif not _span_resolves(span, folder):
                missing.append(span)
    return missing


def _missing_paths(code: str) -> list[str]:
    found = (path.rstrip(".").removesuffix("::") for path in _PATH.findall(code))
    return [path for path in found if not _exists(path)]


def _missing_of_file(paragraph: str) -> list[str]:
    """What "`path.py` (`name`)" and "`name` in `path.py`" say and the file does not have."""
    pairs = [
        (path, name)
        for path, said in _OF_FILE.findall(paragraph)
        for name in re.findall(r"[\w.]+", said)
    ]
    pairs += [(path, name) for name, path in _IN_FILE.findall(paragraph)]
    return [
        f"{name} in {path}"
        for path, name in pairs
        if "/" in path and not names().in_file(path, name)
    ]


def _span_resolves(span: str, folder: str) -> bool:
    """Whether what stands between backticks exists, or is of no kind that is checked."""
    if span in FOREIGN:
        return True
    for pattern, exists in _KINDS:
        if found := pattern.fullmatch(span):
            return exists(found, folder)
    return True


def _file_exists(found: re.Match[str], folder: str) -> bool:
    """A bare file name is one of the folder that was named before it, else of any folder."""
    if folder:
        return _exists(f"{folder}/{found[0]}")
    return _exists(found[0]) or any(_exists(f"{room}/**/{found[0]}") for room in ROOMS)


def _call_exists(found: re.Match[str], _folder: str) -> bool:
    name = found[1]
    return name in names().functions | _SQL_FUNCTIONS | OF_THE_SERVER or (
        "." in name and names().resolves(name)
    )


def _subject_exists(found: re.Match[str], _folder: str) -> bool:
    event, wake_up = found[1], found[2]
    return (event or wake_up or found[0].removeprefix("pezzottify.download.")) in words()


def _dotted_exists(found: re.Match[str], _folder: str) -> bool:
    return names().resolves(found[0]) or found[0] in columns() or found[0] in words()


def _class_exists(found: re.Match[str], _folder: str) -> bool:
    return found[0] in names().top_level or found[0].lower() in words()


def _word_exists(found: re.Match[str], _folder: str) -> bool:
    return found[0] in words() | OF_THE_SERVER


_KINDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], bool]], ...] = (
    (_FILE, _file_exists),
    (_CALL, _call_exists),
    (_SUBJECT, _subject_exists),
    (_DOTTED, _dotted_exists),
    (_CLASS, _class_exists),
    (_WORD, _word_exists),
)


def test_every_path_and_name_in_the_documents_exists() -> None:
    """A module that moved, or a function with another name, is changed in the pages as well.

    One test for all pages: each process that runs some reads all the code for it.
    """
    texts = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    found = {page: unresolved(text) for page, text in texts.items()}
    assert {page: names for page, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "`shared/db/nowhere.py`",
        "`services/nowhere/`",
        "`services/ingest/http.py`, `nowhere.py`",
        "`nowhere.py`",
        "`services/ingest/http.py` (`nowhere`)",
        "`services/ingest/http.py` (`Api.nowhere`)",
        "`nowhere` in `services/ingest/http.py`",
        "`nowhere()`",
        "`Stage.NOWHERE`",
        "`states.nowhere`",
        "`services.nowhere`",
        "`NoSuchClass`",
        "`event.no.where`",
        "`pezzottify.download.work.nothing_like_it`",
        "`tickets.nowhere`",
        "`no_such_column`",
        "```\nservices/nowhere/   a room\n```",
    ],
)
def test_a_wrong_name_is_found(planted: str) -> None:
    """Each kind of name is checked: one that does not exist is reported."""
    assert unresolved(f"A sentence.\n\n{planted}\n") != []


def test_every_foreign_name_is_needed() -> None:
    """A name that is exempt stands in some page."""
    spans = {span for page in PAGES for span in _SPAN.findall(page.read_text(encoding="utf-8"))}
    assert sorted(FOREIGN - spans) == []
