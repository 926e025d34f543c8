"""Where the file of each track lies, and what the catalog server knows of it."""

from shared.db.migrate import run_sql_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_sql_file("0008_presence.sql")
