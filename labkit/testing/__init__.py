"""Help for tests of code that sends jobs: a real SLURM cluster on one machine."""

from labkit.testing.slurm import ClusterError, SlurmCluster

__all__ = ["ClusterError", "SlurmCluster"]
