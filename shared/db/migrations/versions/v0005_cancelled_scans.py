"""Scans that were ended by a person."""

from shared.db.migrate import run_sql_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql_file("0005_cancelled_scans.sql")
