"""Refused downloads that are kept, and blocks that say why."""

from shared.db.migrate import run_sql_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql_file("0014_refused_files.sql")
