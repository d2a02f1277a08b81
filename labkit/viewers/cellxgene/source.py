"""Read what a check needs from an AnnData or a file, and leave the matrix where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from labkit.base.addresses import address_problem
from labkit.base.problems import Problem
from labkit.viewers.cellxgene.errors import DataRefusedError


@dataclass(frozen=True)
class Matrix:
    """Shape and kind of a matrix that need not be in memory.

    Attributes
    ----------
    shape : tuple of int
        Cells x genes.
    dtype : numpy.dtype
        Of its values.
    layout : str
        ``"dense"``, ``"csr"`` or ``"csc"``.
    stored : int
        Number of stored values: all of them where dense, the non-zeros where sparse.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    layout: str
    stored: int

    def size_as(self, itemsize: int) -> int:
        """Return the bytes it takes in memory with values of ``itemsize`` bytes."""
        if self.layout == "dense":
            return self.stored * itemsize
        index = 4 if self.stored < 2**31 else 8
        return self.stored * (itemsize + index) + (max(self.shape) + 1) * index

    @property
    def size(self) -> int:
        """Bytes it takes in memory as it is."""
        return self.size_as(self.dtype.itemsize)


@dataclass
class Source:
    """Data to show: its tables in memory, its matrix on call.

    Attributes
    ----------
    title : str
        What the user calls it.
    path : Path or None
        The h5ad file that CellxGene could open itself; None where it has to be written first.
    adata : AnnData or None
        The AnnData where the data came as one.
    obs, var : pandas.DataFrame
        Tables of the cells and of the genes: the user's own objects, never to be changed.
    obsm : dict
        Embeddings.
    uns : dict
        The colours (``*_colors``), and ``version`` where there is one.
    x : Matrix or None
        What the matrix is.
    read_x : callable
        Returns the matrix itself: a numpy array or a scipy sparse matrix.
    look_at_x : callable
        Calls a function with the matrix where it lies, without reading it as a whole.
    beside : int
        Bytes of what CellxGene would load as well and never use (layers, raw, graphs).
    in_memory : bool
        Whether the matrix is in this process' memory already.
    """

    title: str
    path: Path | None
    adata: ad.AnnData | None
    obs: pd.DataFrame
    var: pd.DataFrame
    obsm: dict[str, Any]
    uns: dict[str, Any]
    x: Matrix | None
    read_x: Callable[[], Any]
    look_at_x: Callable[[Callable[[Any], str]], str]
    beside: int = 0
    in_memory: bool = False
    why_copy: list[str] = field(default_factory=list)

    @property
    def tables(self) -> int:
        """Bytes of the tables and embeddings in memory."""
        frames = (self.obs.memory_usage(deep=True).sum(), self.var.memory_usage(deep=True).sum())
        return int(sum(frames)) + sum(getattr(v, "nbytes", 0) for v in self.obsm.values())


def read_source(data: Any) -> Source:
    """Open an AnnData, an h5ad file or a zarr store.

    Raises
    ------
    DataRefusedError
        Where it is none of these, or cannot be read.
    """
    if isinstance(data, ad.AnnData):
        return _from_anndata(data)
    address = address_problem("file", data)
    if address is not None:
        raise DataRefusedError(f"'{data}'", [address])
    path = Path(data).expanduser().resolve()
    problem = _path_problem(path)
    if problem:
        raise DataRefusedError(f"'{path}'", [problem])
    try:
        return _from_file(path)
    except DataRefusedError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise DataRefusedError(
            f"'{path}'",
            [
                Problem(
                    "file",
                    f"The file cannot be read: {_first_line(error)}",
                    "it may be cut off or damaged: compare its size with the original and copy it "
                    f"again; `anndata.read_h5ad({path.name!r})` must work first.",
                )
            ],
        ) from error


def _path_problem(path: Path) -> Problem | None:
    if path.suffix.lower() not in (".h5ad", ".zarr"):
        return Problem(
            "file",
            f"'{path.name}' is neither an .h5ad file nor a .zarr folder.",
            "read it with scanpy (e.g. `adata = sc.read_10x_h5(...)`, `sc.read_csv(...)`), "
            "then pass the AnnData: `labkit.cellxgene(adata)`.",
        )
    if not path.exists():
        near = (
            sorted(p.name for p in path.parent.glob("*.h5ad"))[:5] if path.parent.is_dir() else []
        )
        return Problem(
            "file",
            f"There is no '{path.name}' in {path.parent}.",
            f"check the name; there is: {', '.join(near)}" if near else "check folder and name.",
        )
    return None


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"


# -- from an AnnData ---------------------------------------------------------------------------


def _from_anndata(adata: ad.AnnData) -> Source:
    x = None if adata.isbacked and not _has_backed_x(adata) else adata.X
    title = Path(str(adata.filename)).stem if adata.isbacked else "AnnData"
    return Source(
        title=title,
        path=None,
        adata=adata,
        obs=adata.obs,
        var=adata.var,
        obsm=dict(adata.obsm),
        uns=_wanted_uns(adata.uns),
        x=None if x is None else _describe(x),
        read_x=lambda: _to_memory(x),
        look_at_x=lambda look: look(x),
        in_memory=not adata.isbacked,
    )


def _has_backed_x(adata: ad.AnnData) -> bool:
    file = adata.file
    if not file.is_open:
        file.open()
    return "X" in file


def _to_memory(x: Any) -> Any:
    if isinstance(x, np.ndarray) or sp.issparse(x):
        return x
    for method in ("to_memory", "compute"):  # backed sparse; dask
        if hasattr(x, method):
            return getattr(x, method)()
    return np.asarray(x[...])


def _describe(x: Any) -> Matrix:
    rows, columns = x.shape
    layout = str(getattr(x, "format", "dense"))
    if layout not in ("csr", "csc"):
        return Matrix((rows, columns), np.dtype(x.dtype), "dense", rows * columns)
    stored = x.nnz if hasattr(x, "nnz") else x.group["data"].shape[0]
    return Matrix((rows, columns), np.dtype(x.dtype), layout, int(stored))


def _wanted_uns(uns: Mapping[str, Any]) -> dict[str, Any]:
    return {k: uns[k] for k in uns if str(k).endswith("_colors") or k == "version"}


# -- from a file -------------------------------------------------------------------------------


def _from_file(path: Path) -> Source:
    if path.suffix.lower() == ".zarr":
        import zarr

        root: Any = zarr.open_group(str(path), mode="r")
        if _is_old(root):
            return _from_old(ad.read_zarr(path), path)

        @contextmanager
        def opened_zarr() -> Iterator[Any]:
            yield zarr.open_group(str(path), mode="r")

        return _from_group(root, path, opened_zarr)

    import h5py

    @contextmanager
    def opened() -> Iterator[Any]:
        with h5py.File(path, "r") as file:
            yield file

    with h5py.File(path, "r") as file:
        if _is_old(file):
            return _from_old(ad.read_h5ad(path), path)
        return _from_group(file, path, opened)


def _is_old(root: Any) -> bool:
    """Return whether anndata before 0.7 wrote it: tables as one array, sparse without a name."""
    tables = any(hasattr(root[name], "dtype") for name in ("obs", "var") if name in root)
    x = root.get("X")
    unnamed = x is not None and not hasattr(x, "dtype") and "encoding-type" not in x.attrs
    return tables or unnamed


def _from_old(adata: ad.AnnData, path: Path) -> Source:
    source = _from_anndata(adata)
    source.title = path.stem
    source.why_copy.append("old file format (anndata before 0.7): written anew")
    return source


def _from_group(root: Any, path: Path, opened: Callable[[], AbstractContextManager[Any]]) -> Source:
    def look_at_x(look: Callable[[Any], Any]) -> Any:
        with opened() as file:
            return look(file["X"])

    missing = [name for name in ("obs", "var") if name not in root]
    if missing:
        raise DataRefusedError(
            f"'{path}'",
            [
                Problem(
                    "file",
                    f"It holds no AnnData (no {' and no '.join(missing)} in it).",
                    "open it with the program that made it; for 10x files use "
                    "`sc.read_10x_h5(...)` and pass the AnnData.",
                )
            ],
        )
    uns = root.get("uns", {})
    source = Source(
        title=path.stem,
        path=path if path.suffix == ".h5ad" else None,  # CellxGene takes no other spelling
        adata=None,
        obs=read_elem(root["obs"]),
        var=read_elem(root["var"]),
        obsm=_flat(read_elem(root["obsm"])) if "obsm" in root else {},
        uns={k: read_elem(uns[k]) for k in uns if k.endswith("_colors") or k == "version"},
        x=_describe_stored(root["X"]) if "X" in root else None,
        read_x=lambda: look_at_x(read_elem),
        look_at_x=look_at_x,
        beside=sum(_stored_bytes(root[k]) for k in ("layers", "raw", "obsp", "varp") if k in root),
    )
    if path.suffix.lower() == ".h5ad" != path.suffix:
        source.why_copy.append("CellxGene opens only files whose name ends in '.h5ad'")
    elif path.suffix.lower() == ".zarr":
        source.why_copy.append("zarr store: written as h5ad, CellxGene reads no zarr")
    elif not str(path).isprintable():
        source.why_copy.append("the file's name has characters that CellxGene cannot take")
    return source


def _flat(obsm: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by name: a name with '/' was stored as a folder."""
    flat: dict[str, Any] = {}
    for name, value in obsm.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{below}": item for below, item in _flat(value).items()})
        else:
            flat[name] = value
    return flat


def _describe_stored(x: Any) -> Matrix | None:
    encoding = x.attrs.get("encoding-type", "")
    if encoding == "null":
        return None
    if encoding in ("csr_matrix", "csc_matrix"):
        rows, columns = (int(n) for n in x.attrs["shape"])
        return Matrix((rows, columns), x["data"].dtype, encoding[:3], int(x["data"].shape[0]))
    rows, columns = (int(n) for n in x.shape)
    return Matrix((rows, columns), x.dtype, "dense", rows * columns)


def _stored_bytes(element: Any) -> int:
    return sum(item.size * item.dtype.itemsize for item in _arrays(element))


def _arrays(element: Any) -> Iterator[Any]:
    if hasattr(element, "dtype"):
        yield element
        return
    for key in element:
        yield from _arrays(element[key])
