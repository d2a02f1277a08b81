"""Memory: what is needed against what there is, before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

import labkit
from labkit.viewers.cellxgene import memory
from labkit.viewers.cellxgene.errors import NotEnoughMemoryError
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import Answers, make

if TYPE_CHECKING:
    import anndata as ad


def room(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    left = memory.Available(size, "the memory limit of your server")
    monkeypatch.setattr(memory, "available", lambda: left)


@needs_env("cellxgene")
def test_too_large_data_is_refused_with_numbers(
    home: Path, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, 200 * 10**6)
    with pytest.raises(NotEnoughMemoryError) as refused:
        labkit.cellxgene(adata)
    message = str(refused.value)
    assert "needs about 340 MB" in message and "191 MB are left" in message
    assert "120 cells × 30 genes" in message and "force=True" in message
    assert labkit.cellxgene.running() == []
    assert list((home / ".cache/labkit/cellxgene").glob("*.h5ad")) == []


@needs_env("cellxgene")
def test_force_opens_it_all_the_same(
    home: Path, port: int, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, 200 * 10**6)
    card = labkit.cellxgene(adata, port, force=True)
    assert any("force=True" in note for note in card.notes)
    assert Answers(card).schema


@needs_env("cellxgene")
def test_tight_memory_is_told_and_comparisons_are_limited(
    home: Path, port: int, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, memory.BASE_BYTES + 70_000)
    card = labkit.cellxgene(adata, port)
    assert any("Memory is tight" in note for note in card.notes)
    limit = Answers(card).json("config")["config"]["limits"]["diffexp_cellcount_max"]
    assert 0 <= limit < 120
    assert any(f"limited to {limit}" in note for note in card.notes)


@needs_env("cellxgene")
def test_a_heavy_file_is_slimmed_where_it_would_not_fit(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata.layers["heavy"] = np.zeros((adata.n_obs, adata.n_vars))
    adata.obsm["X_pca"] = np.ones((adata.n_obs, 50)) * np.arange(50)
    from labkit.viewers.cellxgene.source import read_source

    path = tmp_path / "heavy.h5ad"
    adata.write_h5ad(path)
    source = read_source(path)
    assert source.beside == adata.layers["heavy"].nbytes
    assert source.x is not None
    plain = memory.BASE_BYTES + source.x.size + source.tables
    room(monkeypatch, plain + source.beside // 2)
    card = labkit.cellxgene(path, port)
    assert Path(card._record.served) != path
    assert Answers(card).schema["dataframe"]["nObs"] == adata.n_obs


@needs_env("cellxgene")
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_the_estimate_is_close_to_what_is_used(home: Path, port: int, kind: str) -> None:
    """200 MB of matrix: measured memory within 25 % of the estimate, and never far above it."""
    random = np.random.default_rng(0)
    data = make(cells=5000, genes=10_000)
    if kind == "dense":
        data.X = random.random((5000, 10_000), dtype="float32")
    card = labkit.cellxgene(data, port)
    used = card.memory()
    assert 0.75 < used / card._record.memory < 1.1


def test_the_profile_limit_counts_what_the_user_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    held = memory._own_processes()
    assert held >= 0.5 * psutil.Process().memory_full_info().uss
    monkeypatch.setenv("LABHUB_MEMORY_BYTES", str(10**6))
    left = memory.available()
    assert (left.size, left.limit_by) == (0, "the memory limit of your server's profile")
    monkeypatch.setenv("LABHUB_MEMORY_BYTES", "a lot")
    assert memory.available().size > 0


def test_old_copies_go_first_and_those_in_use_stay(home: Path) -> None:
    import os

    from labkit.viewers.cellxgene import copies

    names = ("oldest", "used", "young")
    for age, name in enumerate(names):
        path = copies.path_of(name)
        path.write_bytes(b"x" * 100)
        os.utime(path, (age, age))
    copies.prune(200, keep={copies.path_of("used")})
    left = {path.stem for path in copies.path_of("x").parent.glob("*.h5ad")}
    assert left == {"used", "young"}
    copies.prune(0, keep={copies.path_of("used")})
    assert {path.stem for path in copies.path_of("x").parent.glob("*.h5ad")} == {"used"}
