"""A SLURM cluster as a backend: sbatch, squeue, scancel and scontrol, nothing else."""

from labkit.jobs.backends.slurm.backend import SlurmBackend

__all__ = ["SlurmBackend"]
