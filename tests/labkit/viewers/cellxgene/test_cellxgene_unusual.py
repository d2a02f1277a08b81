"""Unusual data that people have: shown right with a note, or refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import labkit
from labkit.base import cgroups
from labkit.base.ports import free_port
from labkit.server.viewer import _why_it_ended
from labkit.viewers.cellxgene.errors import DataRefusedError
from labkit.viewers.cellxgene.failures import explain
from labkit.viewers.paths import program
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import CELLS, Answers, make
from tests.labkit.viewers.cellxgene.test_cellxgene_data import assert_same_cells
from tests.labkit.viewers.cellxgene.test_cellxgene_labels import write_labels
from tests.support.job_helpers import until

if TYPE_CHECKING:
    import anndata as ad

pytestmark = [needs_env("cellxgene"), pytest.mark.usefixtures("preloaded")]


def few_colours(adata: ad.AnnData) -> str:
    adata.uns["kind_colors"] = np.array(["#ff0000"], dtype=object)
    return "uns['kind_colors']: left out: 1 colours for 2 categories"


def no_colours(adata: ad.AnnData) -> str:
    adata.uns["kind_colors"] = None
    return "uns['kind_colors']: left out: 0 colours for 2 categories"


def reserved_column(adata: ad.AnnData) -> str:
    adata.obs["_index"] = 1.5
    return "obs['_index']: column is now called 'index'"


def folder_in_a_name(adata: ad.AnnData) -> str:
    adata.obsm["X_a/b"] = adata.obsm.pop("X_umap")
    return "obsm['X_a/b']: is now called 'X_a_b'"


def colours_of_a_folder(adata: ad.AnnData) -> str:
    adata.obs["a/b"] = adata.obs["kind"]
    adata.uns["a/b_colors"] = np.array(["#ff0000", "#00ff00"], dtype=object)
    return "uns['a/b_colors']: left out: a name with '/' cannot be stored"


def infinite(adata: ad.AnnData) -> str:
    adata.obs["depth"] = np.array([np.inf, -np.inf, *np.arange(CELLS - 2)])
    return "obs['depth']: infinite values are shown as gaps"


def infinite_categories(adata: ad.AnnData) -> str:
    import pandas as pd

    adata.obs["step"] = pd.Categorical([np.inf, 1.0] * (CELLS // 2))
    return "obs['step']: categories of type 'float64' stored as text"


IN_MEMORY = (
    few_colours, no_colours, reserved_column, folder_in_a_name, colours_of_a_folder, infinite,
    infinite_categories,
)  # fmt: skip
# The others are what anndata writes to no file.
IN_A_FILE = (few_colours, no_colours, folder_in_a_name, infinite, infinite_categories)


@pytest.mark.parametrize(
    ("trap", "as_file"),
    [*((trap, False) for trap in IN_MEMORY), *((trap, True) for trap in IN_A_FILE)],
    ids=[*(f"memory-{t.__name__}" for t in IN_MEMORY), *(f"file-{t.__name__}" for t in IN_A_FILE)],
)
@pytest.mark.filterwarnings("ignore")
def test_it_is_shown_and_the_change_is_told(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path, trap: Any, as_file: bool
) -> None:
    expected = trap(adata)
    data: Any = adata
    if as_file:
        data = tmp_path / "data.h5ad"
        adata.write_h5ad(data)
    card = labkit.cellxgene(data, port)
    assert expected in [f"{where}: {what}" for where, what in card.changes]
    answers = Answers(card)
    assert_same_cells(answers, adata)
    assert len(answers.layout()) == 2
    answers.json("colors")
    if trap is infinite:
        np.testing.assert_equal(answers.column("depth")[:3], [np.nan, np.nan, 0])


def test_an_old_zarr_is_shown(home: Path, port: int, adata: ad.AnnData, tmp_path: Path) -> None:
    """Before anndata 0.7 a table was one array of records, and a sparse matrix had no name."""
    import zarr

    path = tmp_path / "old.zarr"
    adata.obs["kind"] = adata.obs["kind"].astype(str)
    adata.X = adata.X.toarray()
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    root.create_array("X", data=adata.X)
    for name, table in (("obs", adata.obs), ("var", adata.var)):
        records = table.to_records()
        kinds = [(key, f"S{20}") for key in records.dtype.names]
        root.create_array(name, data=records.astype(kinds))
    root.create_group("obsm").create_array("X_umap", data=adata.obsm["X_umap"])
    card = labkit.cellxgene(path, port)
    assert_same_cells(Answers(card), adata)
    assert any("old file format" in what for _, what in card.changes)


@pytest.mark.parametrize("suffix", [".H5AD", ".H5ad"])
def test_capitals_in_the_suffix(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path, suffix: str
) -> None:
    adata.write_h5ad(tmp_path / "data.h5ad")
    path = Path(shutil.move(tmp_path / "data.h5ad", tmp_path / f"data{suffix}"))
    card = labkit.cellxgene(path, port)
    assert_same_cells(Answers(card), adata)
    assert card.title == "data"


@pytest.mark.parametrize("form", ["dense", "csr", "csc", "backed", "backed sparse", "zarr"])
def test_values_that_are_no_numbers_are_told(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path, form: str
) -> None:
    import anndata
    import scipy.sparse as sp

    x = adata.X.toarray()
    x[0, 0], x[3, 4], x[5, 5] = np.nan, np.nan, np.inf
    kinds = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "backed sparse": sp.csr_matrix}
    adata.X = kinds.get(form, np.asarray)(x)
    data: Any = adata
    if form.startswith("backed"):
        adata.write_h5ad(tmp_path / "data.h5ad")
        data = anndata.read_h5ad(tmp_path / "data.h5ad", backed="r")
    elif form == "zarr":
        data = tmp_path / "data.zarr"
        adata.write_zarr(data)
    card = labkit.cellxgene(data, port)
    (note,) = [note for note in card.notes if "NaN" in note]
    assert "2 values are missing (NaN) and 1 values are infinite" in note
    assert "differential expression" in note


def test_finite_values_are_no_news(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path
) -> None:
    adata.write_h5ad(tmp_path / "data.h5ad")
    assert labkit.cellxgene(tmp_path / "data.h5ad", port).notes == []


def test_labels_of_cells_with_one_name_come_by_position(
    home: Path, port: int, adata: ad.AnnData
) -> None:
    adata.obs_names = ["x", "x", "x-1", "y", *[f"c{i}" for i in range(4, CELLS)]]
    card = labkit.cellxgene(adata, port)
    answers = Answers(card)
    import pandas as pd

    shown = pd.Index(answers.column(answers.schema["annotations"]["obs"]["index"]))
    assert shown.is_unique
    (folder,) = (home / "cellxgene-annotations").iterdir()
    mine = [f"label{i}" for i in range(CELLS)]
    write_labels(folder, shown[::-1], mine=mine[::-1])
    adata.obs["mine"] = card.labels()["mine"]
    assert list(adata.obs["mine"]) == mine
    # The labels are columns now, and the next viewer still starts.
    assert Answers(labkit.cellxgene(adata, port)).column("mine") == mine


@pytest.mark.parametrize("step", ["_clean_embeddings", "_clean_colours"])
def test_what_nobody_foresaw_is_told_in_words(
    home: Path, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*arguments: object) -> None:
        raise KeyError("a raw one")

    monkeypatch.setattr(f"labkit.viewers.cellxgene.clean.{step}", fails)
    with pytest.raises(DataRefusedError, match=r"(?s)not foreseen: KeyError.*Next step"):
        labkit.cellxgene(adata)


def test_a_copy_that_cannot_be_written_is_told_in_words(
    home: Path, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise TypeError("cannot be written")

    monkeypatch.setattr("labkit.viewers.cellxgene.copies._writable", fails)
    with pytest.raises(DataRefusedError, match="not foreseen: TypeError: cannot be written"):
        labkit.cellxgene(adata)
    assert labkit.cellxgene.running() == []


@pytest.mark.parametrize(
    "address", ["s3://bucket/a.h5ad", "https://host/a.h5ad", "file:///data/a.h5ad"]
)
def test_an_address_is_refused(home: Path, address: str) -> None:
    with pytest.raises(DataRefusedError, match=r"(?s)is an address.*Next step: (Copy|Give)"):
        labkit.cellxgene(address)


def test_the_picker_says_what_a_refusal_says(home: Path, tmp_path: Path) -> None:
    """It said that the memory may have run out, whatever was wrong with the file."""
    (tmp_path / "a.h5ad").write_text("gene,cell\n")
    done = subprocess.run(
        [sys.executable, "-m", "labkit.server.open_viewer"],
        input=json.dumps({"path": str(tmp_path / "a.h5ad"), "force": False}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert "damaged" in said["error"]
    assert said["kind"] == "DataRefusedError"


def test_memory_is_named_where_a_kill_was_counted() -> None:
    for told in (explain("", ended=True, killed=True), _why_it_ended(-9, 1)):
        assert "memory of your server ran out" in told
    for told in (explain("", ended=True, killed=False), _why_it_ended(-9, 0)):
        assert "no kill for want of memory was counted" in told
    assert cgroups.own_oom_kills() >= 0


def test_cellxgene_itself_opens_an_address_of_the_web(tmp_path: Path) -> None:
    """People are told to: it needs a library that it does not install by itself."""
    import httpx

    make().write_h5ad(tmp_path / "cells.h5ad")
    serving = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = free_port()
        command = [str(program("cellxgene", "cellxgene")), "launch"]
        command += [f"http://127.0.0.1:{server.server_address[1]}/cells.h5ad"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--disable-annotations"]
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as viewer,
        ):

            def schema() -> Any:
                assert viewer.poll() is None, (tmp_path / "log").read_text()
                try:
                    return httpx.get(f"http://127.0.0.1:{port}/api/v0.2/schema").json()["schema"]
                except httpx.TransportError:
                    return None

            try:
                until(schema)
                assert schema()["dataframe"]["nObs"] == CELLS
            finally:
                viewer.terminate()
                server.shutdown()
