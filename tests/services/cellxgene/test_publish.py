"""Publishing from a notebook: what is kept, what is refused, versions and who may change them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from labkit.base.problems import RefusedError
from labkit.portal.datasets.client import Client, PublishError
from labkit.portal.datasets.dataset import Published
from labkit.viewers.cellxgene.errors import DataRefusedError
from services.appkit.person import Person
from tests.conftest import needs_env
from tests.labkit.viewers.cellxgene.helpers import CELLS, GENES, make
from tests.services.cellxgene.conftest import Notebook
from tests.services.cellxgene.gate import BOB, EVE, ROOT, Service

pytestmark = needs_env("cellxgene")


def test_it_is_at_its_address_for_its_group(cells: Published, service: Service) -> None:
    assert cells.url == "http://cellxgene--service.localhost/services/cellxgene/cells/"
    assert (cells.owner, cells.groups, cells.version) == ("ada", ["imaging"], 1)
    assert cells.shape == (CELLS, GENES)
    with service.client(BOB) as bob:
        schema = bob.get("cells/api/v0.2/schema").json()["schema"]
        page = bob.get("", headers={"Accept": "text/html"}).text
    assert schema["dataframe"]["nObs"] == CELLS
    assert "Cells" in page and f"{CELLS} cells × {GENES} genes" in page


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    """A file of ada's."""
    data = make(seed=2)
    data.obs["organism"] = "Homo sapiens"
    data.obs["tissue"] = ["blood", "lung"] * (CELLS // 2)
    path = folder / "my cells.h5ad"
    data.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def blood(notebook: Notebook, source: Path) -> Published:
    """Two versions of one dataset: from a file, then from a notebook."""
    notebook.publish(source, "blood", title="One", groups=["imaging"])
    sent = [one for one in notebook.said if one.startswith("Sending")]
    assert sent and sent[-1].endswith("(100 %)")
    return notebook.publish(make(cells=60, seed=5), "blood")


def test_its_origin_is_on_record(blood: Published, source: Path, service: Service) -> None:
    rows: Any = blood.versions()
    assert rows.loc[1, "source"] == "my cells.h5ad"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert rows.loc[1, "source_digest"] == f"sha256:{digest}"
    assert rows.loc[2, "source"] == "memory"
    assert rows.loc[2, "source_digest"].startswith("blake2b:")
    assert set(rows["author"]) == {"ada"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows.loc[1, "created"])
    assert "labkit" in rows.loc[1, "software"] and "anndata" in rows.loc[1, "software"]
    assert list(rows["title"]) == ["One", "One"]
    version = service.catalogue.get(Person("ada"), "blood").shown
    path = service.catalogue.store.data("blood", version, print)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == rows.loc[2, "sha256"]
    assert path.stat().st_mode & 0o777 == 0o400


def test_organism_and_tissue_are_read_from_obs(blood: Published) -> None:
    assert (blood.organism, blood.tissue) == ("Homo sapiens", "blood, lung")


def test_versions_roll_back_and_on(blood: Published, service: Service) -> None:
    assert (blood.version, blood.groups, blood.shape[0]) == (2, ["imaging"], 60)
    with service.client(BOB) as bob:

        def cells_at(path: str) -> int:
            return int(bob.get(f"{path}/api/v0.2/schema").json()["schema"]["dataframe"]["nObs"])

        assert (cells_at("blood"), cells_at("blood@1")) == (60, CELLS)
        blood.roll_back(1)
        assert (cells_at("blood"), cells_at("blood@2")) == (CELLS, 60)
        assert list(blood.versions()["shown"]) == [True, False]
        with pytest.raises(PublishError, match=r"no version 7.*There are: 1, 2"):
            blood.roll_back(7)
    assert service.catalogue.store.next_number("blood") == 3, "a number is never used again"


def test_the_same_data_is_not_sent_again(notebook: Notebook, cells: Published) -> None:
    again = notebook.publish(make(seed=1), "cells", title="After", groups=["imaging", "blood"])
    assert (again.version, again.title, again.groups) == (1, "After", ["blood", "imaging"])
    assert not any(said.startswith("Sending") for said in notebook.said)


def test_an_administrator_changes_what_is_somebody_elses(
    notebook: Notebook, service: Service, cells: Published
) -> None:
    as_root: Any = notebook.published(ROOT)
    changed = as_root["cells"].update(groups=["plants", "imaging"])
    assert (changed.groups, changed.owner) == (["imaging", "plants"], "ada")
    with service.client(EVE) as eve:
        assert eve.get("cells/").status_code == 200


def test_all_mistakes_are_named_before_anything_is_read(notebook: Notebook) -> None:
    with pytest.raises(RefusedError) as refused:
        notebook.publish("no-such.h5ad", "No Such", title="two\nlines", description="x" * 3000)
    assert [one.where for one in refused.value.problems] == ["name", "title", "description"]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (["plants"], "you are not in: plants. Yours are: blood, imaging"),
        (["imaging", "a,b"], "list of names of groups"),
        ("imaging", "list is needed"),
    ],
)
def test_groups_must_be_ones_own(notebook: Notebook, groups: Any, says: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(says)):
        notebook.publish(make(), "foreign", groups=groups)


def test_a_new_dataset_says_who_may_see_it(notebook: Notebook) -> None:
    with pytest.raises(PublishError, match="say who may open it"):
        notebook.publish(make(), "nobody-said")


def test_a_name_is_its_first_owners(cells: Published, notebook: Notebook) -> None:
    with pytest.raises(PublishError, match="'cells' is somebody else's"):
        notebook.publish(make(), "cells", who=BOB, groups=["imaging"])


def test_unpublished_is_gone_for_others_and_kept(
    notebook: Notebook, service: Service, blood: Published
) -> None:
    blood.unpublish()
    with service.client(BOB) as bob:
        assert bob.get("blood/api/v0.2/schema").status_code == 404
        assert "blood" not in bob.get("").text
        blood.republish()
        assert bob.get("blood/api/v0.2/schema").status_code == 200
    blood.unpublish(delete=True)
    assert "blood" not in notebook.published()
    assert not (service.folder / "datasets/blood").exists()


def test_data_that_cannot_be_drawn_is_refused_here(notebook: Notebook) -> None:
    data = make()
    del data.obsm["X_umap"]
    with pytest.raises(DataRefusedError, match="no 2-D embedding"):
        notebook.publish(data, "undrawn", groups=[])


def test_what_nobody_foresaw_is_told_in_words(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise KeyError("a raw one")

    for step in ("viewers.cellxgene.clean._clean_embeddings", "portal.datasets.thumbnail.draw"):
        with monkeypatch.context() as patch:
            patch.setattr(f"labkit.{step}", fails)
            with pytest.raises(DataRefusedError, match=r"(?s)not foreseen: KeyError"):
                notebook.publish(make(seed=77), "unforeseen", groups=[])


def test_an_object_that_cannot_be_fetched_is_told_in_words(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(
        RefusedError, match=r"s3://bucket/a.H5AD: the connection failed.*endpoint right"
    ):
        notebook.publish("s3://bucket/a.H5AD", "away", groups=[])


def test_a_colour_that_is_no_column(notebook: Notebook) -> None:
    with pytest.raises(RefusedError, match=r"no column 'type'.*It has: kind"):
        notebook.publish(make(), "uncoloured", groups=[], color="type")


def test_outside_of_the_portal_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABHUB_SERVICES_URL", raising=False)
    with pytest.raises(PublishError, match="from a notebook of the lab's portal"):
        Client.from_environment()


def test_a_service_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("http://127.0.0.1:9", "secret-token")
    with pytest.raises(PublishError, match="cannot be reached"):
        client.ask("PATCH", "datasets/x", {})
    assert "secret-token" not in repr(client)
