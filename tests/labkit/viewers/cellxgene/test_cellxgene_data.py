"""Every content that CellxGene 1.3.0 refuses or dies on: shown right, or refused with a reason."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import labkit
from labkit.viewers.cellxgene.errors import DataRefusedError
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import CELLS, GENES, Answers, make

if TYPE_CHECKING:
    import anndata as ad

pytestmark = [needs_env("cellxgene"), pytest.mark.usefixtures("preloaded")]


def dense(x: Any) -> np.ndarray[Any, Any]:
    import scipy.sparse as sp

    return x.toarray() if sp.issparse(x) else np.asarray(x)


def assert_same_cells(answers: Answers, adata: ad.AnnData) -> None:
    """CellxGene serves the cells, the category and the genes of the data, in its order."""
    schema = answers.schema
    assert (schema["dataframe"]["nObs"], schema["dataframe"]["nVar"]) == adata.shape
    assert answers.column(schema["annotations"]["obs"]["index"]) == list(adata.obs_names)
    assert answers.column("kind") == list(adata.obs["kind"])
    for gene in (adata.var_names[0], adata.var_names[-1]):
        column = dense(adata[:, gene].X).ravel()
        np.testing.assert_allclose(answers.expression(gene), column, rtol=1e-6)


def on_disk(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    path = tmp_path / "plain.h5ad"
    adata.write_h5ad(path)
    return path, adata


def in_zarr(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    adata.write_zarr(tmp_path / "plain.zarr")
    return str(tmp_path / "plain.zarr"), adata


def backed(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    import anndata as ad

    adata.write_h5ad(tmp_path / "backed.h5ad")
    return ad.read_h5ad(tmp_path / "backed.h5ad", backed="r"), adata


def backed_dense(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    adata.X = adata.X.toarray()
    return backed(adata, tmp_path)


def backed_view(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    return backed(adata, tmp_path)[0][10:90, 3:], adata[10:90, 3:]


def as_view(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    view = adata[5:100, ::2]
    assert view.is_view
    return view, view.copy()


def as_dense(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    adata.X = adata.X.toarray()
    return adata, adata


def as_csc(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    import scipy.sparse as sp

    adata.X = sp.csc_matrix(adata.X)
    return adata, adata


def as_int64(adata: ad.AnnData, tmp_path: Path) -> tuple[Any, ad.AnnData]:
    adata.X = adata.X.astype("int64")
    return on_disk(adata, tmp_path)


@pytest.mark.parametrize(
    "form",
    [on_disk, in_zarr, backed, backed_dense, backed_view, as_view, as_dense, as_csc, as_int64],
    ids=lambda form: form.__name__,
)
def test_every_form_of_data_is_served_as_it_is(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path, form: Any
) -> None:
    data, expected = form(adata, tmp_path)
    card = labkit.cellxgene(data, port)
    assert card.shape == expected.shape
    assert_same_cells(Answers(card), expected)


def test_a_good_file_is_served_itself(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path
) -> None:
    path, _ = on_disk(adata, tmp_path)
    card = labkit.cellxgene(path, port)
    assert card.changes == []
    assert list((home / ".cache/labkit/cellxgene").glob("*.h5ad")) == []


def test_columns_that_cellxgene_dies_on_are_converted(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path
) -> None:
    """Int64 (with gaps or not), beyond int32, boolean with gaps, big categories, dates …"""

    import pandas as pd

    ones = np.arange(CELLS)
    gaps = [None, *range(1, CELLS)]
    obs = adata.obs
    obs["gaps"] = pd.array(gaps, dtype="Int64")
    obs["Int64"] = pd.array(ones, dtype="Int64")
    obs["big"] = ones + 2**40
    obs["uint32"] = (ones + 2**31).astype("uint32")
    obs["maybe"] = pd.array([None, *[True, False] * (CELLS // 2)][:CELLS], dtype="boolean")
    obs["bool"] = ones % 2 == 0
    obs["Float64"] = pd.array([None, *np.arange(1, CELLS) / 4], dtype="Float64")
    obs["bigcat"] = pd.Categorical(ones % 3 + 2**40)
    obs["boolcat"] = pd.Categorical(ones % 2 == 0)
    obs["bins"] = pd.cut(ones, [-1, 50, 200])
    obs["date"] = pd.Timestamp("2024-03-01")
    obs["text"] = pd.array(["x", None] * (CELLS // 2), dtype="string")
    obs["mixed"] = [1, "one"] * (CELLS // 2)
    obs["nothing"] = pd.Series([None] * CELLS, index=obs.index, dtype=object)
    obs["complex"] = np.ones(CELLS, dtype=complex)
    obs["infinite"] = [np.inf, np.nan, *range(CELLS - 2)]
    obs["a/b"] = pd.Categorical(["x", "y"] * (CELLS // 2))
    before = adata.copy()

    card = labkit.cellxgene(adata, port)

    answers = Answers(card)
    changed = {where for where, _ in card.changes}
    harmless = {"kind", "bool", "nothing", "a/b"}
    assert changed == {f"obs[{name!r}]" for name in obs.columns if name not in harmless}
    served = answers.columns()
    assert set(obs.columns) - set(served) == {"complex"}
    np.testing.assert_equal(answers.column("gaps"), [np.nan, *map(float, range(1, CELLS))])
    assert answers.column("Int64") == ones.tolist()
    np.testing.assert_allclose(answers.column("big"), ones + 2**40, rtol=1e-6)
    np.testing.assert_allclose(answers.column("uint32"), ones + 2**31, rtol=1e-6)
    assert answers.column("maybe")[:3] == [None, "True", "False"]
    assert answers.column("bool")[:2] == [1, 0]
    np.testing.assert_equal(answers.column("Float64")[:3], [np.nan, 0.25, 0.5])
    assert answers.column("bigcat")[0] == str(2**40)
    assert answers.column("boolcat")[:2] == ["True", "False"]
    assert answers.column("bins")[0] == "(-1, 50]"
    assert answers.column("date")[0].startswith("2024-03-01")
    assert answers.column("text")[:2] == ["x", None]
    assert answers.column("mixed")[:2] == ["1", "one"]
    assert answers.column("nothing") == [None] * CELLS
    assert answers.column("a/b")[:2] == ["x", "y"]
    np.testing.assert_equal(answers.column("infinite")[:3], [np.nan, np.nan, 0])
    pd.testing.assert_frame_equal(adata.obs, before.obs)  # the user's data is as it was


def test_the_same_traps_in_a_file(home: Path, port: int, adata: ad.AnnData, tmp_path: Path) -> None:
    import pandas as pd

    adata.obs["gaps"] = pd.array([None, *range(1, CELLS)], dtype="Int64")
    adata.obs["maybe"] = pd.array([None, *[True] * (CELLS - 1)], dtype="boolean")
    adata.obs["big"] = np.arange(CELLS) + 2**40
    path, _ = on_disk(adata, tmp_path)
    card = labkit.cellxgene(path, port)
    assert {where for where, _ in card.changes} == {"obs['gaps']", "obs['maybe']", "obs['big']"}
    assert Answers(card).column("maybe")[:2] == [None, "True"]


def double_genes(adata: ad.AnnData) -> tuple[str, str]:
    adata.var_names = ["CD3", "CD3", *adata.var_names[2:]]
    return "var names", "CD3-1"


def string_index(adata: ad.AnnData) -> tuple[str, str]:
    adata.var_names = adata.var_names.astype("string")
    return "var names", "gene1"


def double_columns(adata: ad.AnnData) -> tuple[str, str]:
    import pandas as pd

    adata.obs = pd.concat([adata.obs, adata.obs], axis=1)
    return "obs['kind']", "gene1"


def frame_in_obsm(adata: ad.AnnData) -> tuple[str, str]:
    import pandas as pd

    adata.obsm["X_umap"] = pd.DataFrame(adata.obsm["X_umap"], index=adata.obs_names).add_prefix("d")
    return "obsm['X_umap']", "gene1"


def infinite_point(adata: ad.AnnData) -> tuple[str, str]:
    adata.obsm["X_umap"][0, 0] = np.inf
    return "obsm['X_umap']", "gene1"


def spatial(adata: ad.AnnData) -> tuple[str, str]:
    adata.obsm["spatial"] = adata.obsm.pop("X_umap")
    return "obsm['spatial']", "gene1"


def colours_with_alpha(adata: ad.AnnData) -> tuple[str, str]:
    adata.uns["kind_colors"] = np.array(["#ff0000ff", "C1"], dtype=object)
    return "uns['kind_colors']", "gene1"


def colours_of_numbers(adata: ad.AnnData) -> tuple[str, str]:
    adata.uns["kind_colors"] = np.array([[1, 0, 0, 1], [0, 1, 0, 1.0]])
    return "uns['kind_colors']", "gene1"


def colours_unreadable(adata: ad.AnnData) -> tuple[str, str]:
    adata.uns["kind_colors"] = np.array(["<script>", "x"], dtype=object)
    return "uns['kind_colors']", "gene1"


def colours_without_categories(adata: ad.AnnData) -> tuple[str, str]:
    adata.obs["depth"] = 1.0
    adata.uns["depth_colors"] = np.array(["#ff0000"], dtype=object)
    return "uns['depth_colors']", "gene1"


def foreign_schema(adata: ad.AnnData) -> tuple[str, str]:
    adata.uns["version"] = {"corpora_schema_version": "2.0.0", "corpora_encoding_version": "0.1.0"}
    return "uns['version']", "gene1"


@pytest.mark.parametrize(
    "trap",
    [
        double_genes,
        string_index,
        double_columns,
        frame_in_obsm,
        infinite_point,
        spatial,
        colours_with_alpha,
        colours_of_numbers,
        colours_unreadable,
        colours_without_categories,
        foreign_schema,
    ],
    ids=lambda trap: trap.__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_other_traps_are_converted(home: Path, port: int, adata: ad.AnnData, trap: Any) -> None:
    where, gene = trap(adata)
    card = labkit.cellxgene(adata, port)
    assert where in {place for place, _ in card.changes}
    answers = Answers(card)
    np.testing.assert_array_equal(answers.expression(gene), dense(adata.X)[:, 1])
    assert len(answers.layout()) == 2
    answers.json("colors")
    answers.json("config")


def test_colours_are_kept(home: Path, port: int, adata: ad.AnnData) -> None:
    adata.uns["kind_colors"] = np.array(["#ff0000ff", "tab:blue"], dtype=object)
    card = labkit.cellxgene(adata, port)
    assert Answers(card).json("colors") == {"kind": {"a": "#ff0000", "b": "#1f77b4"}}


def test_genes_can_be_named_by_symbol(home: Path, port: int, adata: ad.AnnData) -> None:
    adata.var_names = [f"ENSG{i:011d}" for i in range(GENES)]
    adata.var["feature_name"] = ["CD19", "CD19", *[f"S{i}" for i in range(2, GENES)]]
    hinted = labkit.cellxgene(adata, port)
    assert any("gene_names='feature_name'" in note for note in hinted.notes)
    hinted.stop()
    named = labkit.cellxgene(adata, port, gene_names="feature_name")
    np.testing.assert_array_equal(Answers(named).expression("CD19-1"), dense(adata.X)[:, 1])


def no_matrix(adata: ad.AnnData) -> str:
    adata.layers["counts"] = adata.X
    adata.X = None
    return r"X is empty.*adata\.X = adata\.layers\['counts'\]"


def no_embedding(adata: ad.AnnData) -> str:
    del adata.obsm["X_umap"]
    return r"no 2-D embedding.*sc\.tl\.umap\(adata\)"


def one_column(adata: ad.AnnData) -> str:
    adata.obsm["X_umap"] = np.ones((CELLS, 1))
    return r"obsm\['X_umap'\] has fewer than two columns"


def all_on_one_point(adata: ad.AnnData) -> str:
    adata.obsm["X_umap"] = np.ones((CELLS, 2))
    return "all cells on one point"


def only_gaps(adata: ad.AnnData) -> str:
    adata.obsm["X_umap"] = np.full((CELLS, 2), np.nan)
    return "no finite coordinates"


@pytest.mark.parametrize(
    "trap",
    [no_matrix, no_embedding, one_column, all_on_one_point, only_gaps],
    ids=lambda trap: trap.__name__,
)
@pytest.mark.parametrize("as_file", [False, True], ids=["memory", "file"])
def test_what_cannot_be_shown_is_refused(
    home: Path, adata: ad.AnnData, tmp_path: Path, trap: Any, as_file: bool
) -> None:
    expected = trap(adata)
    if as_file and trap is no_matrix:
        expected = "X is empty"  # a file's layers are not looked into
    data = on_disk(adata, tmp_path)[0] if as_file else adata
    with pytest.raises(DataRefusedError, match=f"(?s){expected}.*"):
        labkit.cellxgene(data)
    assert labkit.cellxgene.running() == []


def test_all_problems_are_named_at_once(home: Path, adata: ad.AnnData) -> None:
    adata.X = None
    del adata.obsm["X_umap"]
    with pytest.raises(DataRefusedError) as refused:
        labkit.cellxgene(adata, gene_names="symbol")
    assert len(refused.value.problems) == 3
    assert all(problem.hint for problem in refused.value.problems)


def test_empty_data_is_refused(home: Path) -> None:
    with pytest.raises(DataRefusedError, match="0 cells and 30 genes"):
        labkit.cellxgene(make()[:0])


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def a_text(path: Path) -> Path:
    path.write_text("gene,cell\n")
    return path


def not_anndata(path: Path) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file["matrix"] = [1, 2]
    return path


def other_suffix(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_suffix(".h5")))


def absent(path: Path) -> Path:
    return path.with_name("plian.h5ad")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncated, "damaged"),
        (a_text, "damaged"),
        (not_anndata, "no AnnData"),
        (other_suffix, r"neither an \.h5ad"),
        (absent, r"(?s)no 'plian\.h5ad'.*there is: plain\.h5ad"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_broken_files_are_refused(
    home: Path, adata: ad.AnnData, tmp_path: Path, damage: Any, expected: str
) -> None:
    path, _ = on_disk(adata, tmp_path)
    with pytest.raises(DataRefusedError, match=expected):
        labkit.cellxgene(damage(path))


@pytest.mark.parametrize(
    "name",
    ["two words.h5ad", 'it\'s "x".h5ad', "-rf.h5ad", "$(id).h5ad", "zéll 細胞.h5ad", "a\nb.h5ad"],
)
def test_hostile_file_names(
    home: Path,
    port: int,
    adata: ad.AnnData,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adata.write_h5ad(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    card = labkit.cellxgene(name, port)
    answers = Answers(card)
    assert_same_cells(answers, adata)
    assert answers.json("config")["config"]["displayNames"]["dataset"] == Path(name).stem


def test_few_cells_are_served_too(home: Path, port: int) -> None:
    """Left alone, CellxGene answers with nothing where the answer is shorter than 500 bytes."""
    adata = make(cells=12)
    assert_same_cells(Answers(labkit.cellxgene(adata, port)), adata)
