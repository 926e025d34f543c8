"""Which of the releases that an indexer lists is taken: pure, without I/O."""
