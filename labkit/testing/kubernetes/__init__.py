"""A real Kubernetes of one node on this machine, for tests."""

from labkit.testing.kubernetes.cluster import KubernetesCluster
from labkit.testing.kubernetes.machine import missing

__all__ = ["KubernetesCluster", "missing"]
