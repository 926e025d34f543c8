"""Tickets for albums, files out of torrents, conversion."""

from shared.db.migrate import run_sql_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql_file("0004_albums.sql")
