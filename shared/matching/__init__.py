"""Which file of a torrent is which track of an album."""
