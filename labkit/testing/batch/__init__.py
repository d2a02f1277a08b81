"""AWS Batch on loopback: moto's control plane, and jobs that really run, as plain processes."""

from labkit.testing.batch.server import BatchServer

__all__ = ["BatchServer"]
