"""The catalog server's requests that the bridge has taken over, and what it keeps of the server."""

from shared.db.migrate import run_sql_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql_file("0009_bridge.sql")
