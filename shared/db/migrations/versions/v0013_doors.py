"""What repeated wishes and retries count as."""

from shared.db.migrate import run_sql_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_sql_file("0013_doors.sql")
