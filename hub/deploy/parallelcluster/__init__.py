"""AWS ParallelCluster: its configuration, made from the lab file."""
