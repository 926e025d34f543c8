"""Deadlines that count only time in which the product looked."""

from shared.db.migrate import run_sql_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql_file("0012_seen_time.sql")
