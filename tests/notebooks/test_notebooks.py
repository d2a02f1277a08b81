"""The tutorials, executed as a user would: the users' environment, a clean home, no privileges."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labkit.viewers.cellxgene import process
from tests.conftest import needs_env
from tests.support.portal import REPOSITORY, built_envs

NOTEBOOKS = REPOSITORY / "notebooks"
_EXECUTE = Path(__file__).with_name("execute.py")

pytestmark = [needs_env("notebook"), needs_env("cellxgene")]


@dataclass
class Tutor:
    """A user without privileges, with a home and nothing in it."""

    home: Path
    uid: int | None

    def run(
        self, *command: str, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as that user, with the environment of a fresh login."""
        environment = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "LABHUB_ENVS": str(built_envs()),
            "LABHUB_LAB_NAME": "Test lab",
            "PYTHONPATH": str(self.home / "library"),
            **(more or {}),
        }
        # Only root may (and must) say who it runs as.
        who: dict[str, Any] = {"user": self.uid, "group": self.uid, "extra_groups": []}
        return subprocess.run(
            [str(built_envs() / "notebook/bin/python"), *command],
            env=environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
            umask=0o077,
            **(who if self.uid is not None else {}),
        )

    def execute(
        self, name: str, checks: str, more: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Execute a notebook, then the checks in its kernel; return what they put in ``seen``."""
        done = self.run(str(self.home / "execute.py"), str(self.home / name), checks, more=more)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def tutor() -> Iterator[Tutor]:
    # Not below pytest's folder, which is root's alone.
    home = Path(tempfile.mkdtemp(prefix="labhub-tutor-"))
    uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    # The wheel is not installed in a fresh checkout: a copy that the user may read stands in.
    shutil.copytree(REPOSITORY / "labkit", home / "library/labkit")
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, home)
    shutil.copy(_EXECUTE, home)
    user = Tutor(home, uid)
    if uid is not None:
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, uid)
    yield user
    user.run("-c", "import labkit; labkit.cellxgene.stop_all()")
    shutil.rmtree(home)


_CHECKS = """
truth = answer_key.loc[adata.obs_names]
first = lambda cells: adata.obs["cell_type"][truth == cells].mode()[0]
top = lambda group, n: markers[markers.group == group].names.head(n).tolist()
cluster_of = lambda cells: adata.obs["leiden"][truth == cells].mode()[0]
seen = {
    "shipped": shipped.n_obs,
    "cells": adata.n_obs,
    "clusters": adata.obs["leiden"].nunique(),
    "B markers": top(cluster_of("CD19+ B"), 5),
    "NK markers": top(cluster_of("CD56+ NK"), 5),
    "named": {kind: first(kind) for kind in truth.cat.categories},
    "agree B": adata.obs["cell_type"][truth == "CD19+ B"].isin(["B cell", "Plasma cell"]).mean(),
    "saved": __import__("anndata").read_h5ad("pbmc.h5ad").shape[0],
    "url": card.url,
    "port": card.port,
}
"""


@pytest.mark.slow
def test_the_single_cell_tutorial_finds_what_is_known(tutor: Tutor) -> None:
    seen = tutor.execute("01-single-cell.ipynb", _CHECKS)
    assert seen["shipped"] == 700
    assert 680 <= seen["cells"] < 700, "the limits take off the tails, not the cells"
    assert 8 <= seen["clusters"] <= 13
    assert {"CD79A", "MS4A1"} <= set(seen["B markers"])
    assert "NKG7" in seen["NK markers"] and "GNLY" in seen["NK markers"]
    assert seen["named"]["CD19+ B"] == "B cell"
    assert seen["named"]["CD56+ NK"] == "NK / cytotoxic"
    assert seen["named"]["CD14+ Monocyte"] == "Monocyte"
    assert seen["named"]["Dendritic"] == "Dendritic"
    assert seen["named"]["CD34+"] == "Progenitor"
    assert seen["named"]["CD4+/CD25 T Reg"] == "T cell"
    assert seen["agree B"] > 0.95
    assert seen["saved"] == seen["cells"]
    assert seen["url"] == f"http://127.0.0.1:{seen['port']}/"
    status, schema = process.ask(seen["port"], "/api/v0.2/schema")
    frame = json.loads(schema)["schema"]
    assert status == 200 and frame["dataframe"]["nObs"] == seen["cells"]
    assert "cell_type" in {c["name"] for c in frame["annotations"]["obs"]["columns"]}


def test_the_welcome_runs(tutor: Tutor) -> None:
    seen = tutor.execute("00-welcome.ipynb", "seen = {'home': str(Path.home())}")
    assert seen["home"] == str(tutor.home)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "Users" not in path.read_text() and not re.search(r"/(home|root)/\w", path.read_text())
