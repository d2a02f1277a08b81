"""Small data, and what CellxGene itself answers."""

from __future__ import annotations

import json
import struct
import urllib.parse
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.viewers.cellxgene import process
from labkit.viewers.cellxgene.card import Card

if TYPE_CHECKING:
    import anndata as ad

CELLS, GENES = 120, 30


def make(cells: int = CELLS, genes: int = GENES, seed: int = 0) -> ad.AnnData:
    """Return sparse counts with one category and a UMAP."""

    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    random = np.random.default_rng(seed)
    data = ad.AnnData(
        sp.csr_matrix(random.poisson(1, (cells, genes)).astype("float32")),
        obs=pd.DataFrame(
            {"kind": pd.Categorical(random.choice(["a", "b"], cells))},
            index=[f"cell{i}" for i in range(cells)],
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(genes)]),
    )
    data.obsm["X_umap"] = random.normal(size=(cells, 2))
    return data


class Answers:
    """What a running CellxGene answers, decoded."""

    def __init__(self, card: Card):
        self.port = card.port

    def json(self, path: str) -> Any:
        status, body = process.ask(self.port, f"/api/v0.2/{path}")
        assert status == 200, (path, status)
        return json.loads(body)

    @property
    def schema(self) -> dict[str, Any]:
        return dict(self.json("schema")["schema"])

    def column(self, name: str) -> list[Any]:
        """Return a column of obs."""
        return self._columns(f"annotations/obs?annotation-name={urllib.parse.quote(name)}")[0]

    def columns(self) -> dict[str, str]:
        return {c["name"]: c["type"] for c in self.schema["annotations"]["obs"]["columns"]}

    def expression(self, gene: str) -> np.ndarray[Any, Any]:
        """Return the expression of a gene in all cells."""
        index = self.schema["annotations"]["var"]["index"]
        # CellxGene unquotes names twice.
        name = urllib.parse.quote(urllib.parse.quote(gene, safe=""), safe="")
        found = self._columns(f"data/var?var:{index}={name}")
        assert len(found) == 1, "one gene asked, one gene answered"
        return np.array(found[0])

    def layout(self) -> list[list[float]]:
        return self._columns("layout/obs")

    def _columns(self, path: str) -> list[list[Any]]:
        status, body = process.ask(self.port, f"/api/v0.2/{path}")
        assert status == 200, (path, status, body[:200])
        return decode(body)


def decode(body: bytes) -> list[list[Any]]:
    """Return the columns of CellxGene's matrix message (flatbuffers), read by hand."""

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", body, at)[0])

    def slot(table: int, number: int) -> int:
        """Return where a field is, 0 where it is left out."""
        vtable = table - struct.unpack_from("<i", body, table)[0]
        size = struct.unpack_from("<H", body, vtable)[0]
        offset = 4 + 2 * number
        jump = struct.unpack_from("<H", body, vtable + offset)[0] if offset < size else 0
        return table + jump if jump else 0

    def follow(at: int) -> int:
        return at + u32(at)

    root = u32(0)
    vector = follow(slot(root, 2))
    columns = []
    for number in range(u32(vector)):
        column = follow(vector + 4 + 4 * number)
        kind = body[slot(column, 0)]
        data = follow(slot(follow(slot(column, 1)), 0))
        length, start = u32(data), data + 4
        if kind == 5:  # JSON
            columns.append(json.loads(body[start : start + length]))
        else:
            code = {1: "<f4", 2: "<i4", 3: "<u4", 4: "<f8"}[kind]
            columns.append(np.frombuffer(body, code, length, start).tolist())
    return columns
