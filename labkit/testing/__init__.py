"""Help for tests of code that sends jobs: a real SLURM cluster on one machine."""

from labkit.testing.machine import ClusterError
from labkit.testing.slurm import SlurmCluster

__all__ = ["ClusterError", "SlurmCluster"]
