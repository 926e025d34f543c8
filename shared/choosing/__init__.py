"""Which of the releases that an indexer lists is taken: pure, without a look at anything else."""
