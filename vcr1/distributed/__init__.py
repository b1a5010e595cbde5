"""Several processes: ranks, sharded training, and the end of a run whose processes hang or die."""
