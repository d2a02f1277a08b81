"""Labels made in CellxGene: kept, brought back to the notebook, never lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import labkit
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import Answers

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

pytestmark = [needs_env("cellxgene"), pytest.mark.usefixtures("preloaded")]


def write_labels(folder: Path, cells: pd.Index, **labels: list[str]) -> None:
    """Write what CellxGene writes when a user has labelled cells."""

    import pandas as pd

    table = pd.DataFrame(labels, index=cells)
    header = "# Annotations generated on 2026-01-01T00:00:00 using cellxgene version 1.3.0\n"
    (folder / "cell-labels.csv").write_text(header + table.to_csv())


def test_labels_come_back_to_the_notebook(home: Path, port: int, adata: ad.AnnData) -> None:
    card = labkit.cellxgene(adata, port)
    assert card.labels().empty
    (folder,) = (home / "cellxgene-annotations").iterdir()
    write_labels(folder, adata.obs_names, mine=["T", "B"] * 60)
    adata.obs["mine"] = card.labels()["mine"]
    assert list(adata.obs["mine"][:2]) == ["T", "B"]


def test_labels_stay_when_the_data_is_worked_on(home: Path, port: int, adata: ad.AnnData) -> None:
    labkit.cellxgene(adata, port)
    (folder,) = (home / "cellxgene-annotations").iterdir()
    write_labels(folder, adata.obs_names, mine=["T", "B"] * 60)
    adata.X = adata.X * 2
    card = labkit.cellxgene(adata, port)
    assert Answers(card).column("mine")[:2] == ["T", "B"]


def test_a_label_that_became_a_column_does_not_break_the_viewer(
    home: Path, port: int, adata: ad.AnnData
) -> None:
    card = labkit.cellxgene(adata, port)
    (folder,) = (home / "cellxgene-annotations").iterdir()
    write_labels(folder, adata.obs_names, mine=["T", "B"] * 60, more=["x", "y"] * 60)
    adata.obs["mine"] = card.labels()["mine"]
    again = labkit.cellxgene(adata, port)
    answers = Answers(again)
    assert answers.column("mine")[:2] == ["T", "B"]
    assert answers.column("more")[:2] == ["x", "y"]
    (backup,) = folder.glob("cell-labels-*.csv")
    assert "mine" in backup.read_text()
    assert any(str(backup) in note for note in again.notes)


@pytest.mark.parametrize("names", [lambda i: str(i), lambda i: f"00{i}", lambda i: f"a,{i} é"])
def test_labels_of_oddly_named_cells_are_read_back(
    home: Path, port: int, adata: ad.AnnData, names: object
) -> None:
    adata.obs_names = [names(i) for i in range(adata.n_obs)]  # type: ignore[operator]
    card = labkit.cellxgene(adata, port)
    (folder,) = (home / "cellxgene-annotations").iterdir()
    write_labels(folder, adata.obs_names, mine=["T", "B"] * 60)
    assert list(card.labels().index) == list(adata.obs_names)
    card.stop()
    assert Answers(labkit.cellxgene(adata, port)).column("mine")[:2] == ["T", "B"]


def test_hashes_in_cell_names_switch_labels_off(home: Path, port: int, adata: ad.AnnData) -> None:
    adata.obs_names = [f"sample#{i}" for i in range(adata.n_obs)]
    card = labkit.cellxgene(adata, port)
    assert any("'#'" in note for note in card.notes)
    assert Answers(card).json("config")["config"]["parameters"]["annotations"] is False
    with pytest.raises(ValueError, match="switched off"):
        card.labels()


def test_labels_can_be_switched_off_or_put_elsewhere(
    home: Path, port: int, adata: ad.AnnData, tmp_path: Path
) -> None:
    off = labkit.cellxgene(adata, port, annotations=False)
    assert Answers(off).json("config")["config"]["parameters"]["annotations"] is False
    assert not (home / "cellxgene-annotations").exists()
    labkit.cellxgene(adata, port, annotations=tmp_path / "my labels")
    assert (tmp_path / "my labels").is_dir()


def test_two_viewers_do_not_write_the_same_labels(home: Path, port: int, adata: ad.AnnData) -> None:
    first = labkit.cellxgene(adata, port)
    changed = adata.copy()
    changed.X = changed.X * 2
    second = labkit.cellxgene(changed, port + 1)
    assert second.status() == first.status() == "running"
    assert first._record.labels != second._record.labels
