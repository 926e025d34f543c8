"""What each service may do in PostgreSQL: one list, and nothing in the schema that it forgets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.db.rights import Right, relations, rights
from shared.settings import EVERY_SERVICE, Service

ROOT = Path(__file__).parents[2]
MIGRATIONS = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (ROOT / "shared/db/migrations/versions").glob("*.sql")
)
MADE = set(re.findall(r"^CREATE (?:TABLE|SEQUENCE) (?:IF NOT EXISTS )?(\w+)", MIGRATIONS, re.M))


def test_every_table_and_sequence_has_its_line() -> None:
    """Without one, no service could use a new table: add it to shared/db/rights.py."""
    assert relations().keys() == MADE


@pytest.mark.parametrize("relation", sorted(MADE))
def test_every_table_is_used_by_a_service(relation: str) -> None:
    """And what one inserts, one deletes or it has one row: nothing that only grows."""
    letters = "".join(relations()[relation].values())
    assert letters
    assert set(letters) <= set("rawdU")
    assert ("U" in letters) == relation.endswith("_seq")


def test_secret_columns_are_the_ticketers() -> None:
    """Of every other service the right to read names the columns, and leaves those out."""
    columns = {"tickets": ("id", "links"), "releases": ("magnet_uri",)}
    read = {right for right in rights(columns) if right.privilege == "SELECT"}
    others = set(EVERY_SERVICE) - {"ticketer", "watchdog", "bridge"}
    assert {r for r in read if r.relation == "tickets" and r.service in others} == {
        Right(service, "tickets", "id", "SELECT") for service in others
    }
    assert Right("ticketer", "tickets", None, "SELECT") in read
    assert {r.service for r in read if r.relation == "releases"} == {"ticketer"}


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_no_service_rewrites_the_history(service: Service) -> None:
    """It marks events as published, and only the reaper deletes some."""
    found = {r for r in rights({"events": ("seq", "kind", "published_at")}) if r.service == service}
    assert {r.column for r in found if r.privilege == "UPDATE"} == {"published_at"}
    assert (Right(service, "events", None, "DELETE") in found) == (service == "reaper")
