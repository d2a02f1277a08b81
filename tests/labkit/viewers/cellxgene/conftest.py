"""A home of its own for each test, where viewers are stopped at the end; a quick CellxGene."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import labkit
from labkit.base.ports import free_port
from labkit.viewers.cellxgene import process
from tests.labkit.viewers.cellxgene.helpers import make
from tests.support import preloaded_cellxgene
from tests.support.portal import built_envs

if TYPE_CHECKING:
    import anndata as ad


_PRELOADED = Path(preloaded_cellxgene.__file__)


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


@pytest.fixture(scope="session")
def preloaded_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What stands in the place of serve.py and starts CellxGene without importing it anew."""
    folder = tmp_path_factory.mktemp("preloaded")
    python = built_envs() / "cellxgene" / "bin" / "python"
    program: list[str | Path] = [python, "-I", "-W", "ignore::FutureWarning", _PRELOADED]
    with subprocess.Popen(
        [*program, process._SERVE, folder / "socket"],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "NUMBA_CACHE_DIR": str(folder)},
    ) as preloaded:
        assert preloaded.stdout is not None
        assert preloaded.stdout.readline() == b"ready\n"
        yield folder / "start.py"
        preloaded.kill()


@pytest.fixture
def preloaded(preloaded_serve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start viewers quickly: for tests of what is shown, not of how the process is started."""
    monkeypatch.setattr(process, "_SERVE", preloaded_serve)
