"""Ingest's own SQL, by subject. Statements that move an item are in `shared/db`."""

# What ingest is called in the history of an item.
ACTOR = "ingest"
