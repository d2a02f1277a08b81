"""Check data against what CellxGene 1.3.0 reads, and make clean copies of the tables.

The rules were found on the real CellxGene; ``tests/labkit/viewers/cellxgene/`` shows each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import anndata.utils
import numpy as np
import pandas as pd

from labkit.base.problems import Problem
from labkit.viewers.cellxgene.source import Source

_INT32 = np.iinfo(np.int32)
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}")
_SYMBOL_COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_names", "gene_name")
# Above this many stored values CellxGene takes seconds to colour by a gene from a CSR matrix.
_CSR_TOO_SLOW = 50_000_000


@dataclass(frozen=True)
class Change:
    """What was changed, and where.

    Attributes
    ----------
    where : str
        The place in the AnnData, e.g. ``"obs['age']"``.
    what : str
        What was done to it, in plain words.
    """

    where: str
    what: str


@dataclass
class Cleaned:
    """Tables that CellxGene reads, with what was changed, refused and worth knowing.

    ``changes`` is empty where the data can be served as it is. ``annotatable`` is False where
    CellxGene could not read labels back that were made in it.
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    obsm: dict[str, Any]
    uns: dict[str, Any]
    changes: list[Change] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    annotatable: bool = True


def clean(source: Source, gene_names: str | None = None) -> Cleaned:
    """Check everything but the matrix' values; the source is left untouched.

    Parameters
    ----------
    source : Source
        The data.
    gene_names : str, optional
        Column of ``var`` to name the genes by, instead of its index.
    """
    result = Cleaned(obs=source.obs, var=source.var, obsm={}, uns={})
    result.changes += [Change("file", why) for why in source.why_copy]
    _check_matrix(source, result)
    result.obs = _clean_table("obs", source.obs, "cell", result)
    var = source.var
    if gene_names is not None:
        var = _named_by(var, gene_names, result)
    result.var = _clean_table("var", var, "gene", result)
    _clean_embeddings(source, result)
    _clean_colours(source, result)
    _look_at_names(result, gene_names)
    return result


def _check_matrix(source: Source, result: Cleaned) -> None:
    x = source.x
    if x is None:
        layers = list(source.adata.layers) if source.adata is not None else []
        result.problems.append(
            Problem(
                "X",
                "It has no expression matrix (X is empty).",
                f"put one there, e.g. `adata.X = adata.layers[{layers[0]!r}].copy()`."
                if layers
                else "put the expression values into `adata.X`.",
            )
        )
        return
    if x.shape[0] < 2 or x.shape[1] < 1:
        result.problems.append(
            Problem(
                "X",
                f"It has {x.shape[0]} cells and {x.shape[1]} genes: too few to show.",
                "look at the filter steps: `sc.pp.filter_cells` and `sc.pp.filter_genes` may "
                "have been too strict.",
            )
        )
    if x.dtype.kind not in "biuf":
        result.problems.append(
            Problem(
                "X",
                f"The matrix X holds values of type '{x.dtype}', not real numbers.",
                "convert it: `adata.X = adata.X.astype('float32')`.",
            )
        )
    elif x.dtype.kind == "b" or (x.dtype.kind in "iu" and x.dtype.itemsize == 8):
        result.changes.append(Change("X", f"{x.dtype} stored as float32"))
    if source.in_memory or source.path is None:
        return  # a copy is written anyway, by columns
    if x.layout == "csr" and x.stored > _CSR_TOO_SLOW:
        result.changes.append(
            Change("X", "sparse by rows (CSR) stored by columns (CSC): genes appear faster")
        )


# -- tables ------------------------------------------------------------------------------------


def _clean_table(table: str, frame: pd.DataFrame, noun: str, result: Cleaned) -> pd.DataFrame:
    """Return a table whose index and columns CellxGene reads; new objects where changed."""
    columns: dict[str, Any] = {}
    for position, name in enumerate(frame.columns):
        # anndata keeps the name "_index" for itself.
        label = _free_name("index" if name == "_index" else str(name), columns)
        where = f"{table}[{name!r}]"
        if label != name:
            result.changes.append(Change(where, f"column is now called '{label}'"))
        series, what = _clean_column(frame.iloc[:, position])
        if what:
            result.changes.append(Change(where, what))
        if series is not None:
            columns[label] = series.array
    index = _clean_index(table, frame.index, noun, result)
    return pd.DataFrame(columns, index=index, copy=False)


def _free_name(name: str, taken: dict[str, Any]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _clean_index(table: str, index: pd.Index[Any], noun: str, result: Cleaned) -> pd.Index[Any]:
    where = f"{table} names"
    if index.dtype != object or not all(isinstance(name, str) for name in index):
        # A string-typed index launches, but each gene then delivers the whole matrix.
        result.changes.append(Change(where, f"{noun} names stored as plain text"))
        index = pd.Index([str(name) for name in index], dtype=object)
    if not index.is_unique:
        doubled = index[index.duplicated()].unique()
        examples = ", ".join(doubled[:3])
        result.changes.append(
            Change(where, f"{len(doubled)} {noun} names were not unique: numbered ({examples}, …)")
        )
        index = anndata.utils.make_index_unique(index)
    return index.rename(None)


def _clean_column(column: pd.Series[Any]) -> tuple[pd.Series[Any] | None, str]:
    """Return the column as CellxGene reads it and what was done; ("", same) where fine."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _clean_categories(column)
    plain_numpy = isinstance(dtype, np.dtype)
    if pd.api.types.is_bool_dtype(dtype):
        if plain_numpy:
            return column, ""
        if not column.isna().any():
            return column.astype(bool), "stored as plain true/false"
        return _texts(column), "true/false with gaps: stored as categories True, False and none"
    if pd.api.types.is_integer_dtype(dtype):
        return _clean_integers(column, plain_numpy)
    if pd.api.types.is_float_dtype(dtype):
        plain = isinstance(dtype, np.dtype) and dtype.itemsize <= 8
        numbers = column.to_numpy() if plain else column.to_numpy("float32", na_value=np.nan)
        infinite = np.isinf(numbers)
        if infinite.any():
            # CellxGene draws no histogram over an endless range.
            numbers = np.where(infinite, np.nan, numbers)
            return pd.Series(numbers, index=column.index), "infinite values are shown as gaps"
        if plain:
            return column, ""
        return pd.Series(numbers, index=column.index), "stored as float32"
    if pd.api.types.is_complex_dtype(dtype):
        return None, "left out: complex numbers cannot be shown"
    if plain_numpy and all(value is None or isinstance(value, str) for value in column):
        return column, ""
    return _texts(column), f"'{dtype}' stored as categories (text)"


def _clean_integers(column: pd.Series[Any], plain: bool) -> tuple[pd.Series[Any], str]:
    gaps = bool(column.isna().any())
    known = column.dropna()
    fits = known.empty or (known.min() >= _INT32.min and known.max() <= _INT32.max)
    if plain and fits:
        return column, ""
    if fits and not gaps:
        return column.astype("int32"), "stored as int32"
    values = pd.Series(column.to_numpy(dtype="float64", na_value=np.nan), index=column.index)
    reason = "whole numbers with gaps" if gaps else "numbers beyond 32 bits (2 147 483 647)"
    rounded = "" if fits else "; only about 7 digits are kept"
    return values.astype("float32"), f"{reason}: stored as float32{rounded}"


def _clean_categories(column: pd.Series[Any]) -> tuple[pd.Series[Any], str]:
    categories = column.cat.categories
    kind = categories.dtype.kind if isinstance(categories.dtype, np.dtype) else "extension"
    if kind in "iuf" and np.isfinite(categories.to_numpy()).all():
        in_range = kind == "f" or categories.empty
        if in_range or (categories.min() >= _INT32.min and categories.max() <= _INT32.max):
            return column, ""
    elif kind == "O" and all(isinstance(value, str) for value in categories):
        return column, ""
    texts = [str(value) for value in categories]
    if len(set(texts)) < len(texts):
        return _texts(column), "categories stored as text"
    named = column.cat.rename_categories(texts)
    return named, f"categories of type '{categories.dtype}' stored as text"


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    values = column.astype(object)
    texts = [
        None if gap else _text(value) for value, gap in zip(values, values.isna(), strict=True)
    ]
    return pd.Series(pd.Categorical(texts), index=column.index)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- genes, embeddings, colours ----------------------------------------------------------------


def _named_by(var: pd.DataFrame, column: str, result: Cleaned) -> pd.DataFrame:
    if column not in var.columns:
        columns = ", ".join(map(str, var.columns)) or "no columns at all"
        result.problems.append(
            Problem(
                "gene_names",
                f"gene_names={column!r}: there is no such column in var.",
                f"choose one of: {columns}.",
            )
        )
        return var
    names = var[column].astype(object)
    texts = [
        str(i) if gap else str(n) for i, n, gap in zip(var.index, names, names.isna(), strict=True)
    ]
    result.changes.append(Change("var names", f"genes are named by the column '{column}'"))
    renamed = var.drop(columns=column)
    renamed.insert(0, "original_name", var.index.astype(str).to_numpy(dtype=object))
    renamed.index = pd.Index(texts, dtype=object)
    return renamed


def _clean_embeddings(source: Source, result: Cleaned) -> None:
    why_not: list[str] = []
    changes: list[Change] = []
    for key, value in source.obsm.items():
        where = f"obsm[{key!r}]"
        array, what = _embedding(value)
        if array is None:
            if key.startswith("X_") or len(source.obsm) == 1:
                why_not.append(f"{where} {what}")
            continue
        name = key
        if not key.startswith("X_"):
            # Only true coordinates: other tools keep wide tables under plain names.
            if array.shape[1] not in (2, 3) or f"X_{key}" in source.obsm:
                continue
            name = f"X_{key}"
            what = f"{what}; " if what else ""
            what += f"shown as the embedding '{key}'"
        if "/" in name:
            free = name.replace("/", "_")
            while free in source.obsm or free in result.obsm:
                free += "_"
            what = (f"{what}; " if what else "") + f"is now called '{free}'"
            name = free
        if what:
            changes.append(Change(where, what))
        result.obsm[name] = array
    result.changes += changes
    if not result.obsm:
        reasons = f" ({'; '.join(why_not)})" if why_not else ""
        result.problems.append(
            Problem(
                "obsm",
                f"It has no 2-D embedding to draw the cells in{reasons}.",
                "compute one: `sc.pp.pca(adata); sc.pp.neighbors(adata); sc.tl.umap(adata)`.",
            )
        )
    elif set(result.obsm) == {"X_pca"}:
        result.hints.append(
            "Only the PCA is there to draw; `sc.pp.neighbors(adata); sc.tl.umap(adata)` separates "
            "groups better."
        )


def _embedding(value: Any) -> tuple[np.ndarray[Any, Any] | None, str]:
    """Return coordinates (cells x dimensions) and what was done, or None and why not."""
    what = ""
    if isinstance(value, pd.DataFrame):
        if not all(pd.api.types.is_numeric_dtype(t) for t in value.dtypes):
            return None, "is a table with columns that are not numbers"
        value, what = value.to_numpy(dtype="float32", na_value=np.nan), "table stored as an array"
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "fiu":
        return None, "is not a plain array of numbers"
    if value.shape[1] < 2:
        return None, "has fewer than two columns"
    if np.isinf(value).any():
        value = np.where(np.isinf(value), np.nan, value)
        what = (f"{what}; " if what else "") + "infinite coordinates: those cells are not drawn"
    first = value[:, :2]
    drawn = first[~np.isnan(first).any(axis=1)]
    if len(drawn) == 0:
        return None, "has no finite coordinates"
    if np.ptp(drawn, axis=0).max() == 0:
        return None, "puts all cells on one point"
    return value, what


def _clean_colours(source: Source, result: Cleaned) -> None:
    if "version" in source.uns:
        result.changes.append(Change("uns['version']", "left out: CellxGene misreads it"))
    for key, value in source.uns.items():
        column = key.removesuffix("_colors")
        if key == "version" or column not in result.obs:
            continue  # CellxGene looks only at colours of columns that exist
        where = f"uns[{key!r}]"
        if not isinstance(result.obs[column].dtype, pd.CategoricalDtype):
            result.changes.append(Change(where, f"left out: '{column}' has no categories"))
            continue
        count = len(result.obs[column].cat.categories)
        colours = [value] if isinstance(value, str) else list(value if value is not None else ())
        if len(colours) < count:
            # CellxGene paints no map where a category has no colour.
            what = f"left out: {len(colours)} colours for {count} categories"
            result.changes.append(Change(where, what))
            continue
        if "/" in key:
            result.changes.append(Change(where, "left out: a name with '/' cannot be stored"))
            continue
        fixed = [_colour(one) for one in colours]
        if None in fixed:
            result.changes.append(Change(where, "left out: CellxGene cannot read these colours"))
            continue
        if any(one is not new for one, new in zip(colours, fixed, strict=True)):
            result.changes.append(Change(where, "colours stored as #rrggbb"))
        result.uns[key] = np.array(fixed, dtype=object)


def _colour(value: Any) -> str | None:
    """Return a colour as #rrggbb, or None where matplotlib does not know it either."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return value
    from matplotlib.colors import to_hex

    try:
        return to_hex(value if isinstance(value, str) else tuple(value))
    except (ValueError, TypeError):
        return None


def _look_at_names(result: Cleaned, gene_names: str | None) -> None:
    if result.obs.index.str.contains("#", regex=False).any():
        result.annotatable = False
        result.hints.append(
            "Cell names contain '#', which CellxGene takes for a comment when it reads labels "
            "back: making labels is switched off."
        )
    head = result.var.index[:100]
    if gene_names is None and len(head) and all(_ENSEMBL.match(name) for name in head):
        column = next((c for c in _SYMBOL_COLUMNS if c in result.var), None)
        if column:
            result.hints.append(
                f"Genes are named by Ensembl IDs; `gene_names={column!r}` names them by symbol."
            )
