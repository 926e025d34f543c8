"""`make live`: the whole product against a real Torrentino, real torrent clients and a swarm."""
