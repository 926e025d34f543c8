"""Blocked sources of a track, and how often an item's tickets led nowhere."""

from shared.db.migrate import run_sql_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql_file("0002_bad_sources.sql")
