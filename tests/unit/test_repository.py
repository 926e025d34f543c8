"""The repository checks itself: what the documents say is what the code does."""

from __future__ import annotations

import ast
import fnmatch
import inspect
import json
import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.metrics import MetricWrapperBase

from docs.generate import PARTS, rewritten
from services.cli import app as cli
from services.ingest import problems
from services.ingest.admin_routes import AdminRoutes
from services.ingest.user_routes import UserRoutes
from services.registry import every_service
from shared import metrics
from shared.bus import subjects
from shared.settings import EVERY_SERVICE, SECRETS, SERVICES, Settings
from shared.states import REMOTE, TRANSITIONS, Stage

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        *(ROOT / "tests").rglob("*.md"),
    ]
)
COMMANDS = {command.name or command.callback.__name__ for command in cli.registered_commands}  # type: ignore[union-attr]
COMMANDS |= {str(group.name) for group in cli.registered_groups}
# Neither settings of a service nor of .env: the command line's address, Compose's own, streams.
OTHER_VARIABLES = {
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    "FIRST_MINUTE_PYTHONS",
    "NATS_TLS_DIR",
    "PEZZOTTIFY_BINARY",
    "PEZZOTTIFY_DOWNLOADS_URL",
    "STATE_PROFILE",
    "TORRENTINO_BINARY",
    subjects.REQUESTS_STREAM,
    subjects.EVENTS_STREAM,
    subjects.DEAD_STREAM,
}


def name_of(page: Path) -> str:
    """A page's path in the repository, as the test's id."""
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def own_files() -> Iterator[Path]:
    """Every file of the repository that is not ignored; needs no git."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    ignored.append(".git")
    for folder, folders, files in os.walk(ROOT):
        kept = [f for f in folders if not any(fnmatch.fnmatch(f, name) for name in ignored)]
        folders[:] = kept
        # In a worktree of git, .git is a file.
        yield from (Path(folder) / name for name in files if name != ".git")


def texts() -> Iterator[tuple[Path, str]]:
    """The files of the repository that are text."""
    for path in own_files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


@pytest.mark.parametrize("page", PARTS)
def test_generated_parts_are_what_the_code_gives(page: str) -> None:
    """After a change of states or settings, docs/generate.py has been run."""
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == rewritten(page)


def test_every_edge_of_the_lifecycle_is_explained_once() -> None:
    """The table "Why each edge exists" has the edges of the transition table, no more, no less."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.split("Why each edge exists.")[1].split("\n## ")[0]
    explained = []
    for from_, to, _ in re.findall(r"^\| ([a-z_, ]+) \| ([a-z_, ]+) \| (.+) \|$", table, re.M):
        if from_ == "from":
            continue
        explained += [(a, b) for a in stages(from_) for b in stages(to) if a != b]
    edges = [(from_, to) for from_, targets in TRANSITIONS.items() for to in targets]
    assert sorted(explained) == sorted(edges)


def stages(cell: str) -> list[Stage]:
    """The stages that a cell of the table names; `remote` is four."""
    named = [name.strip() for name in cell.split(",")]
    return [s for name in named for s in (sorted(REMOTE) if name == "remote" else [Stage(name)])]


def test_every_table_of_the_database_is_described() -> None:
    """docs/architecture.md says who writes each table."""
    versions = ROOT / "shared/db/migrations/versions"
    sql = "\n".join(path.read_text() for path in sorted(versions.glob("*.sql")))
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tables = re.findall(r"^CREATE TABLE (\w+)", sql, re.M)
    assert tables
    assert [table for table in tables if f"| `{table}` |" not in text] == []


def test_every_migration_has_its_sql() -> None:
    """Each revision has a Python file and an SQL file, and the newest is the head."""
    from shared.db.migrate import head  # noqa: PLC0415 (Alembic's imports take half a second)

    versions = ROOT / "shared/db/migrations/versions"
    numbers = sorted(path.name[1:5] for path in versions.glob("v*.py"))
    assert numbers == sorted(path.name[:4] for path in versions.glob("*.sql"))
    assert numbers[-1] == head()


@each_page
def test_every_variable_in_the_documents_exists(page: Path) -> None:
    """A name written like an environment variable is a setting, or a known other one."""
    known = {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    known |= {f"{name.upper()}_FILE" for name in SECRETS}
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", code_of(page)))
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    known |= set(re.findall(r"^([A-Z_]+)=", example, re.M))
    named -= {"X_FILE", *constants("states.py"), *constants("settings.py")}
    assert sorted(named - known) == []


def constants(module: str) -> set[str]:
    """The names in capitals that a module of shared/ defines."""
    text = (ROOT / "shared" / module).read_text(encoding="utf-8")
    return set(re.findall(r"^([A-Z_]+)\b", text, re.M))


def code_of(page: Path) -> str:
    """What a page shows as code: its blocks and what stands between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", rest)])


@each_page
def test_every_relative_link_resolves(page: Path) -> None:
    """A link leads to a file of the repository, and to a heading that is there."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        if heading:
            assert heading in headings(found), f"{name_of(page)} links to {target}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_every_command_in_the_documents_exists(page: Path) -> None:
    """`make TARGET`, `pezzottify-downloads COMMAND` and `python -m services.NAME` can be run."""
    code = code_of(page)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    made = re.findall(r"(?:^|[\s;&])make (?:[A-Z]+=\S+ )*([a-z-]+)", code)
    assert set(made) <= targets
    called = re.findall(r"pezzottify-downloads ([a-z]+)", code)
    assert set(called) <= COMMANDS
    modules = re.findall(r"-m services\.(\w+)", code)
    assert set(modules) <= {*EVERY_SERVICE, "cli"}
    assert all((ROOT / path).exists() for path in re.findall(r"(?<![\w/.])docs/[\w/.-]+\w", code))


def test_every_route_and_problem_is_described() -> None:
    """docs/api.md lists each route of ingest with its method, and each type of error."""
    nothing = cast("Any", None)
    made = [
        kind(**dict.fromkeys(inspect.signature(kind).parameters, nothing)).routes()
        for kind in (UserRoutes, AdminRoutes)
    ]
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for route in chain.from_iterable(made):
        for method in (route.methods or set()) - {"HEAD"}:
            line = f"| `{method} {route.path_format}` |"
            assert line in text, line
    for _, status, type_, _ in problems.PROBLEMS:
        assert f"| {status} | `{type_}` |" in text, type_


def test_the_glossary_is_one_line_a_word_in_order() -> None:
    """A word is found by its letter, and read in one line."""
    _, *entries = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").split("\n\n")
    words = [re.match(r"\*\*(.+?)\*\* - [^\n]+\n?$", entry) for entry in entries[1:]]
    assert words
    assert None not in words
    found = [word[1].strip("`").casefold() for word in words if word]
    assert found == sorted(set(found))


def test_every_json_example_is_json() -> None:
    """What docs/api.md shows as JSON can be parsed."""
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```json\n(.*?)^```", text, re.M | re.S)
    assert examples
    for example in examples:
        json.loads(example)


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=name_of)
def test_the_lock_is_whole_and_names_no_registry(lock: Path) -> None:
    """Each requirement is pinned and has a hash; where it is downloaded from is not ours to say."""
    text = lock.read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[\w.+!-]+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    assert "://" not in text
    assert "index-url" not in text


def test_the_lock_has_every_dependency() -> None:
    """What pyproject.toml asks for is pinned in requirements.lock."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z]+\])?[>=]=', pyproject, re.M)
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    assert wanted
    assert set(wanted) <= pinned


def test_every_module_that_tests_share_is_listed() -> None:
    """tests/support/README.md has a line for each module beside it, and for no other."""
    support = ROOT / "tests/support"
    text = (support / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\) \| .+ \|$", text, re.M)
    there = {path.name for path in support.glob("*.py")} - {"__init__.py"}
    assert sorted(listed) == sorted(there)


_PRIVATE = re.compile(r"_[A-Za-z]\w*")
# Of the standard library and of nats-py, which have no public name for it.
_NOT_OURS = {"os._exit", "client._transport"}
# These reach what their first two arguments name.
_BY_NAME = {"setattr", "getattr", "delattr", "hasattr", "object", "patch", "guard"}


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_no_private_member_is_reached_from_outside(folder: str) -> None:
    """What a test drives, reads or replaces has a public name."""
    found = [
        f"{name_of(path)}:{line}: {code}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, code in private_members(ast.parse(path.read_text(encoding="utf-8")))
        if code not in _NOT_OURS
    ]
    assert found == []


def private_members(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Where a module reaches a private member that is not its own object's."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=names):
                reached = [each.name for each in names if _PRIVATE.fullmatch(each.name)]
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                reached = [ast.unparse(node)] if _PRIVATE.fullmatch(name) else []
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _BY_NAME:
                texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                last = [str(text).rpartition(".")[2] for text in texts]
                reached = [each for each in last if _PRIVATE.fullmatch(each)]
            case ast.Tuple(elts=[first, ast.Constant(value=str(name)), *_]):
                reached = [name] if _PRIVATE.fullmatch(name) and _is_owner(first) else []
            case _:
                continue
        yield from ((node.lineno, each) for each in reached)


def _is_owner(node: ast.expr) -> bool:
    """Whether it names a module of the services: a table of what is replaced in them."""
    text = ast.unparse(node).strip("'")
    return text.startswith(("services.", "shared.", "vars("))


@pytest.mark.parametrize(
    "code",
    [
        "from services.poller.store import _SQL",
        "by_hand.fetcher._store",
        "super()._due()",
        "monkeypatch.setattr(pool, '_TIMEOUT_S', 1)",
        "monkeypatch.setattr('shared.db.pool._TIMEOUT_S', 1)",
        "patch.object(place, '_rename')",
        "{('shared.db.pool', '_TIMEOUT_S'): 1}",
        "[(vars(store), '_SQL', 'fence = $2')]",
    ],
)
def test_each_way_to_a_private_member_is_found(code: str) -> None:
    """By import, by attribute, and by a name in a text."""
    assert [line for line, _ in private_members(ast.parse(code))] == [1]


def test_own_members_are_not_private_to_a_test() -> None:
    """A helper's own attributes, and names that are no members."""
    code = "self._a, cls._b, _c, a.b, a.__class__, setattr(a, 'b', '_c'), print('_d')"
    assert list(private_members(ast.parse(code))) == []


def test_every_metric_is_used() -> None:
    """A metric that no code sets would show zero for ever."""
    declared = [
        name for name in vars(metrics) if isinstance(vars(metrics)[name], MetricWrapperBase)
    ]
    assert declared
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if path != ROOT / "shared/metrics.py"
    )
    assert [name for name in declared if not re.search(rf"\b{name}\.", code)] == []


def test_no_text_names_the_machine_or_a_registry() -> None:
    """Nothing in the repository depends on where it was written."""
    # Put together here, so that this file does not hold them.
    forbidden = ["/wo" + "rk/", "pypi" + ".org", "python" + "hosted"]
    found = [
        (name_of(path), text) for path, content in texts() for text in forbidden if text in content
    ]
    assert found == []


def test_every_service_of_the_contract_can_be_built() -> None:
    """`services/<name>/__main__.py` has a `build` for each, and nothing else is a service."""
    contract = ("ingest", "ticketer", "poller", "fetcher_writer", "watchdog", "reaper")
    assert contract == SERVICES
    assert sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py")) == sorted(
        (*contract, "bridge")
    )
    assert all(callable(build) for build in every_service(*EVERY_SERVICE).values())


def test_nats_knows_every_program_by_a_password() -> None:
    """A user for each service, for the catalog server and for people; a variable for each."""
    text = (ROOT / "deploy/nats/nats-server.conf").read_text(encoding="utf-8")
    users = re.findall(r'^\s+user: "(\w+)"\n\s+password: \$(\w+)$', text, re.M)
    assert [user for user, _ in users] == [*EVERY_SERVICE, "catalog", "operator"]
    assert all(variable == f"{user.upper()}_PASSWORD" for user, variable in users)
    assert text.count("user:") == text.count("password:") == len(users)
    assert "no_auth_user:" not in text


def test_ci_runs_from_anywhere() -> None:
    """.ci/run can be executed, stops at the first error and runs `make test` at the root."""
    script = ROOT / ".ci/run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert re.search(r"^make .*\btest\b", text, re.M)
