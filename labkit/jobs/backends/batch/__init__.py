"""AWS Batch as a backend; the run folder is exchanged by way of S3."""

from labkit.jobs.backends.batch.backend import BatchBackend

__all__ = ["BatchBackend"]
