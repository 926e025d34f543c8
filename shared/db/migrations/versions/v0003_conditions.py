"""What each process's circuit breakers say."""

from shared.db.migrate import run_sql_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql_file("0003_conditions.sql")
