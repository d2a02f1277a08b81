"""The one-node Kubernetes that tests share; its programs may still be compiled when they begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.environments.build import STAMP, Environments
from hub.state.paths import Paths
from labkit.base import files

_COMPILES = 2400.0  # seconds, beside other tests
#: For the first test of a file: it may wait until they are.
TIMEOUT = pytest.mark.timeout(_COMPILES + 600)


def programs() -> Path:
    """Return the folder of the cluster's programs; skip where nobody makes them."""
    paths = Paths.from_environment()
    environments = Environments(paths)
    lock = paths.envs / ".locks" / "kubernetes"
    if not environments.is_current("kubernetes") and lock.exists():
        with files.locked(lock, _COMPILES, "the environment kubernetes"):
            pass
    if not environments.is_current("kubernetes"):
        if lock.exists() and not (environments.folder("kubernetes") / STAMP).exists():
            log = environments.log("kubernetes")
            pytest.fail(f"the environment 'kubernetes' could not be built: {log} says why")
        pytest.skip("needs the environment 'kubernetes' (labhub test makes it)")
    return environments.folder("kubernetes") / "bin"
