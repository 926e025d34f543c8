"""The queue, its tickets and requesters, the history and outbox, the ledger of files."""

from shared.db.migrate import run_sql_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql_file("0001_queue.sql")
