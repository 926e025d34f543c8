"""A login role for each service, with the grants that it needs."""

from shared.db.migrate import run_sql_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql_file("0014_roles.sql")
