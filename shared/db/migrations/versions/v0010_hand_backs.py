"""How often an item was handed back, and what placed files were found to be."""

from shared.db.migrate import run_sql_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql_file("0010_hand_backs.sql")
