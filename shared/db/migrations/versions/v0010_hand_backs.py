"""How often an item was handed back, and where the files of tickets were seen."""

from shared.db.migrate import run_sql_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql_file("0010_hand_backs.sql")
