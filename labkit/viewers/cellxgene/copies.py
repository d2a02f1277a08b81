"""Converted copies: written once per content, kept in the user's cache, old ones removed."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from labkit.base import files
from labkit.base.units import GB, format_size
from labkit.viewers import paths
from labkit.viewers.cellxgene.clean import Cleaned
from labkit.viewers.cellxgene.errors import CellxGeneError
from labkit.viewers.cellxgene.source import Matrix, Source

# Part of every identity: raise it when the rules of conversion change.
_RULES = "1"
_CHUNK = 2**24
# Copies beyond this are removed, the longest unused first.
KEEP_BYTES = 20 * GB


def identity(source: Source, cleaned: Cleaned) -> str:
    """Name the content of the data: equal data gives an equal name, also from another kernel.

    A file is named by its path, size and time of change; data in memory by all its values.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(_RULES.encode(), digest_size=16)
    backing = source.path
    adata = source.adata
    if adata is not None and adata.isbacked and not adata.is_view:
        backing = Path(str(adata.filename))
    if backing is not None:
        stat = backing.stat()
        digest.update(f"{backing}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}".encode())
    elif source.x is not None:
        for piece in _matrix_bytes(source.read_x()):
            digest.update(piece)
    for frame in (cleaned.obs, cleaned.var):
        digest.update("|".join(f"{c}:{t}" for c, t in frame.dtypes.items()).encode())
        digest.update(pd.util.hash_pandas_object(frame, categorize=True).to_numpy().tobytes())
    arrays: dict[str, Any] = {**cleaned.obsm, **cleaned.uns}
    for key, value in arrays.items():
        digest.update(key.encode())
        digest.update(
            "|".join(value).encode() if value.dtype == object else np.ascontiguousarray(value).data
        )
    return digest.hexdigest()


def _matrix_bytes(x: Any) -> Iterator[bytes | memoryview]:
    yield f"{type(x).__name__}{x.shape}{x.dtype}".encode()
    if sp.issparse(x):
        for array in (x.data, x.indices, x.indptr):
            yield np.ascontiguousarray(array).view(np.uint8).data
        return
    rows = max(1, _CHUNK // max(1, x.shape[1] * x.dtype.itemsize))
    for start in range(0, x.shape[0], rows):
        yield np.ascontiguousarray(x[start : start + rows]).view(np.uint8).data


def served_matrix(x: Matrix) -> Matrix:
    """Return what the matrix is in a converted copy."""
    layout = "dense" if x.layout == "dense" else "csc"
    return Matrix(x.shape, np.dtype("float32"), layout, x.stored)


def conversion_bytes(source: Source) -> int:
    """Return the memory, in bytes, that writing the copy takes in this process at its peak."""
    if source.x is None:
        return 0
    reading = 0 if source.in_memory else source.x.size
    same = source.x.layout in ("dense", "csc") and source.x.dtype == np.float32
    return reading + (0 if same else served_matrix(source.x).size) + source.tables


def path_of(key: str) -> Path:
    """Return where the converted copy of that identity is, or would be."""
    return paths.cache_folder("cellxgene") / f"{key}.h5ad"


def existing(key: str) -> Path | None:
    """Return the converted copy of that identity, if there is one; it counts as used now."""
    path = path_of(key)
    if not path.exists():
        return None
    os.utime(path)
    return path


def write(source: Source, cleaned: Cleaned, key: str, in_use: Collection[Path]) -> Path:
    """Write the copy that CellxGene opens: matrix (float32, by columns), tables, embeddings.

    Parameters
    ----------
    source, cleaned : Source, Cleaned
        The data, and its tables as CellxGene reads them.
    key : str
        The data's identity.
    in_use : collection of Path
        Copies that running viewers serve, which must not be removed.

    Raises
    ------
    CellxGeneError
        Where the disk has no room.
    """
    if source.x is None:
        raise ValueError("nothing to write: X is empty")
    path = path_of(key)
    need = served_matrix(source.x).size + source.tables
    free = paths.free_bytes(path.parent)
    if need > free:
        raise CellxGeneError(
            f"A copy for CellxGene needs up to {format_size(need)} on disk, and {path.parent} has "
            f"{format_size(free)} left.\nNext step: remove files you no longer need, or show fewer "
            "cells or genes."
        )
    x = source.read_x()
    x = sp.csc_matrix(x, dtype="float32") if sp.issparse(x) else np.asarray(x, dtype="float32")
    copy = ad.AnnData(
        X=x,
        obs=_writable(cleaned.obs),
        var=_writable(cleaned.var),
        obsm=cleaned.obsm,
        uns=dict(cleaned.uns),
    )
    with files.temporary_beside(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that CellxGene takes as they are
            copy.write_h5ad(temporary, compression="lzf")
        temporary.chmod(0o600)
        files.put_in_place(temporary, path)
    prune(KEEP_BYTES, keep={path, *in_use})
    return path


def _writable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy whose text columns are categories: a column of gaps alone cannot be written."""
    copy = frame.copy(deep=False)
    for name in frame:
        if frame[name].dtype == object:
            copy[name] = pd.Categorical(frame[name])
    return copy


def prune(most: int, keep: Collection[Path]) -> None:
    """Remove the longest unused copies until all together take at most ``most`` bytes."""
    copies = [
        (path.stat().st_mtime, path.stat().st_size, path)
        for path in paths.cache_folder("cellxgene").glob("*.h5ad")
    ]
    total = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies):
        if total <= most:
            break
        if path not in keep:
            path.unlink(missing_ok=True)
            total -= size
