from labkit.testing.fixtures import slurm, slurm_cluster

__all__ = ["slurm", "slurm_cluster"]
