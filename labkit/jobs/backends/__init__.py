"""Where jobs run: this machine, SLURM."""

from labkit.jobs.backends.base import Backend, BackendError, SubmitRefusedError, get, names

__all__ = ["Backend", "BackendError", "SubmitRefusedError", "get", "names"]
