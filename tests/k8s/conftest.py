from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.testing.kubernetes import KubernetesCluster
from tests.support.kubernetes import programs


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[KubernetesCluster]:
    """Give a Kubernetes of one node, one for all tests of a worker."""
    with KubernetesCluster(programs()) as cluster:
        yield cluster
