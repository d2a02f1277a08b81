"""Where jobs run: this machine, SLURM."""

from labkit.jobs.backends.base import Backend, BackendError, Limits, Sighting, Sightings, get, names

__all__ = ["Backend", "BackendError", "Limits", "Sighting", "Sightings", "get", "names"]
