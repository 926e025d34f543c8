"""What at Torrentino is this installation's, and what was there before."""

from shared.db.migrate import run_sql_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql_file("0011_owned.sql")
