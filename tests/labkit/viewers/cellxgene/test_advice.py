"""Each piece of advice in our messages and pages runs in the notebook environment."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.viewers.paths import program
from tests.conftest import needs_env

pytestmark = [needs_env("notebook"), pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[4]
SOURCES = ("labkit/viewers", "labkit/portal/datasets", "services/cellxgene")
PAGES = ("docs/how-to/cellxgene.md", "docs/how-to/publish-cellxgene.md")
CALL = re.compile(r"(?:labkit\.cellxgene|sc\.|anndata\.|np\.|adata)\S*")

#: What our texts say -> what is run instead of it, where it has a gap to fill.
RUN = {
    "sc.read_csv(...)": "adata = sc.read_csv('table.csv')",
    "adata = sc.read_10x_h5(...)": "adata = sc.read_10x_h5('ten.h5')",
    "sc.read_10x_h5(...)": "adata = sc.read_10x_h5('ten.h5')",
    "adata.X = adata.layers[{}].copy()": "adata.X = adata.layers['counts'].copy()",
    "anndata.read_h5ad({})": "adata = anndata.read_h5ad('data.h5ad')",
    "labkit.cellxgene(anndata.read_h5ad(path))": "shows(anndata.read_h5ad('data.h5ad'))",
    "labkit.cellxgene(data, port=6005)": "shows('data.h5ad')",
    "labkit.cellxgene(adata[:, adata.var.highly_variable])":
        "shows(adata[:, adata.var.highly_variable])",
    "labkit.cellxgene(adata)": "shows(adata)",
    "labkit.cellxgene": "assert callable(labkit.cellxgene)",
    "sc.pp.filter_cells": "sc.pp.filter_cells(adata, min_genes=1)",
    "sc.pp.filter_genes": "sc.pp.filter_genes(adata, min_cells=1)",
    "sc.pp.sample(adata, n=50_000)": "sc.pp.sample(adata, n=50)",
    "adata.X": "assert adata.X is not None",
    "adata[:, adata.var.highly_variable]": "shows(adata[:, adata.var.highly_variable])",
}  # fmt: skip

#: What people of the field run next, and what failed for want of a package.
STACK = (
    "sc.pp.scrublet(adata)",
    "adata.write_loom('cells.loom'); assert sc.read_loom('cells.loom').shape == adata.shape",
    "import s3fs, xarray, skimage; assert xarray.DataArray([1, 2]).sum() == 3",
)

PREPARE = """
import json, sys, traceback, warnings
warnings.simplefilter("ignore")
import anndata, h5py, labkit, numpy as np, scanpy as sc
from labkit.viewers.cellxgene.clean import clean
from labkit.viewers.cellxgene.source import read_source

def shows(data):
    assert not clean(read_source(data)).problems

def make():
    random = np.random.default_rng(0)
    counts = random.poisson(1.0, (150, 140)).astype("float32")
    counts[:75, :20] += 5
    adata = anndata.AnnData(sc.AnnData(counts).X)
    adata.obs["cell_type"] = ["a", "b", "c"] * 50
    adata.layers["counts"] = adata.X.copy()
    adata.var["highly_variable"] = [True] * 90 + [False] * 50
    adata.obsm["X_umap"] = random.normal(size=(150, 2))
    return adata

make().write_h5ad("data.h5ad")
make().to_df().to_csv("table.csv")
with h5py.File("ten.h5", "w") as file:
    group = file.create_group("matrix")
    for name, values in {"data": [1, 2], "indices": [0, 1], "indptr": [0, 1, 2], "shape": [2, 2],
                         "barcodes": [b"c1", b"c2"]}.items():
        group[name] = values
    for name in ("id", "name", "feature_type", "genome"):
        group[f"features/{name}"] = [b"g1", b"g2"]
wrong = {}
for code in json.load(sys.stdin):
    try:
        exec(code, {"adata": make(), "sc": sc, "np": np, "anndata": anndata, "labkit": labkit,
                    "shows": shows})
    except Exception:
        wrong[code] = traceback.format_exc()[-800:]
print(json.dumps(wrong))
"""


def texts(path: Path) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings; ``{}`` stands for what is filled in."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # docstrings
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield "".join(map(str, parts))


def advice() -> set[str]:
    """Return the code in our messages: between backticks, or a call in a line of its own."""
    codes = set()
    for path in (file for source in SOURCES for file in sorted((ROOT / source).rglob("*.py"))):
        for text in texts(path):
            marked = re.findall(r"`([^`]+)`", text)
            bare = re.findall(r": (labkit\.cellxgene\(.*\)|sc\.pp\..*\))\.?$", text.strip())
            codes |= {code for code in [*marked, *bare] if CALL.search(code)}
    for page in PAGES:
        marked = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", (ROOT / page).read_text())
        codes |= {code for code in marked if re.match(r"(sc|np|anndata)\.", code)}
    return codes


def test_advice_is_seen() -> None:
    assert {
        "sc.pp.pca(adata); sc.pp.neighbors(adata); sc.tl.umap(adata)",
        "labkit.cellxgene(adata[:, adata.var.highly_variable])",
        "sc.pp.sample(adata, n=50_000)",
        "np.isnan(adata.X.data).any()",
        "adata.X = adata.layers[{}].copy()",
        "adata = sc.read_10x_h5(...)",
    } <= advice()
    assert set(RUN) <= advice()


def test_it_runs_as_it_is_written(tmp_path: Path) -> None:
    codes = sorted(RUN.get(code, code) for code in advice()) + list(STACK)
    done = subprocess.run(
        [str(program("notebook", "python")), "-c", PREPARE],
        input=json.dumps(codes), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
