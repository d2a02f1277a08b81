"""Kubernetes: Indexed Jobs on a volume that pods and the person share."""

from labkit.jobs.backends.kubernetes.backend import KubernetesBackend

__all__ = ["KubernetesBackend"]
