"""A home of its own for each test, where viewers are stopped at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import labkit
from labkit.base.ports import free_port
from tests.labkit.viewers.cellxgene.helpers import make
from tests.support.portal import built_envs

if TYPE_CHECKING:
    import anndata as ad


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own; viewers started in it are stopped at the end."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LABHUB_ENVS", str(built_envs()))
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    labkit.cellxgene.stop_all()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def adata() -> ad.AnnData:
    return make()
