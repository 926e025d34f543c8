"""Writes the generated parts of the documentation: `python docs/generate.py`.

Each part stands between `<!-- name:begin -->` and `<!-- name:end -->`. The test
tests/unit/test_repository.py fails when a part is not what this script would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from shared.media.formats import CONTAINERS, PCM, Container
from shared.settings import SECRETS, SERVICES, Service, Settings, SettingsError, load
from shared.states import (
    download_diagram,
    item_diagram,
    scan_diagram,
    server_request_diagram,
)

_DOCS = Path(__file__).parent

# Valid values for every setting that some service requires.
_COMPLETE = {
    "DATABASE_URL": "postgresql://host/database",
    "NATS_URL": "nats://host:4222",
    "TORRENTINO_URL": "http://host/api/v1",
    "TORRENTINO_FILES_URL": "http://host/files",
    "CATALOG_DB": "/catalog.db",
    "MEDIA_PATH": "/media",
}


def _mermaid(diagram: str) -> str:
    return f"```mermaid\n{diagram}```"


def settings_table() -> str:
    """Every variable with its default, its meaning and the services that require it."""
    rows = ["| variable | default | meaning | required by |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable = name.upper()
        default = "" if field.is_required() or field.default is None else f"`{field.default}`"
        rows.append(
            f"| `{variable}` | {default} | {field.description} | {_required_by(variable)} |"
        )
    secrets = ", ".join(f"`{name.upper()}`" for name in SECRETS)
    return "\n".join([*rows, "", f"Secrets, which may come from a file: {secrets}."])


def formats_table() -> str:
    """Every container with its endings, what is taken in it, and what browsers play."""
    rows = ["| container | endings | played | not played |", "|---|---|---|---|"]
    for row in CONTAINERS:
        endings = ", ".join(f"`.{ending}`" for ending in row.endings)
        played = ", ".join(_played(row))
        other = ", ".join(_not_played(row))
        rows.append(f"| {row.name} | {endings} | {played} | {other} |")
    return "\n".join(rows)


def _played(row: Container) -> list[str]:
    """The codecs in their order, forms of samples by their own names."""
    return [codec for codec in row.codecs if codec in row.played] + sorted(
        row.played - row.codecs.keys()
    )


def _not_played(row: Container) -> list[str]:
    others = [codec for codec in row.codecs if codec not in row.played and codec != PCM]
    if PCM not in row.codecs:
        return others
    return ["other samples" if row.played - row.codecs.keys() else "samples", *others]


def _required_by(variable: str) -> str:
    always = [service for service in SERVICES if _needs(service, variable, "shared")]
    over_http = [service for service in SERVICES if _needs(service, variable, "http")]
    if len(always) == len(SERVICES):
        return "all"
    names = [f"`{service}`" for service in always]
    names += [f"`{service}` with `http` delivery" for service in over_http if service not in always]
    return ", ".join(names)


def _needs(service: Service, variable: str, delivery: str) -> bool:
    """Whether `service` refuses to start without `variable`, found out by loading its settings."""
    environ = _COMPLETE | {"TORRENTINO_DELIVERY": delivery}
    environ.pop(variable, None)
    try:
        load([service], environ)
    except SettingsError:
        return True
    return False


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "architecture.md": {
        "lifecycle": lambda: _mermaid(item_diagram()),
        "downloads": lambda: _mermaid(download_diagram()),
        "scans": lambda: _mermaid(scan_diagram()),
        "server_requests": lambda: _mermaid(server_request_diagram()),
    },
    "settings.md": {"settings": settings_table},
    "formats.md": {"formats": formats_table},
}


def rewritten(page: str) -> str:
    """The text of this page with its generated parts as the code has them now."""
    text = (_DOCS / page).read_text(encoding="utf-8")
    for name, make in PARTS[page].items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        found = list(pattern.finditer(text))
        assert len(found) == 1, f"docs/{page} has {begin} and {end} once"
        text = f"{text[: found[0].start()]}{begin}\n{make()}\n{end}{text[found[0].end() :]}"
    return text


if __name__ == "__main__":
    for page in PARTS:
        (_DOCS / page).write_text(rewritten(page), encoding="utf-8")
