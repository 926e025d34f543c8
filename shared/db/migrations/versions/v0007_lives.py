"""The lives of items, downloads and scans, enforced by the database."""

from shared.db.migrate import run_sql_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql_file("0007_lives.sql")
