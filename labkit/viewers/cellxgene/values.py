"""The values of the matrix, looked at piece by piece: which of them are no finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

_PIECE = 2**24  # bytes read at once


def not_finite(x: Any) -> tuple[int, int]:
    """Return how many values are not a number (NaN), and how many are infinite.

    Parameters
    ----------
    x : array, sparse matrix, or one of these on a disk
        Cells x genes; what lies on a disk is read once, in pieces.
    """
    missing = infinite = 0
    for piece in _pieces(x):
        if piece.dtype.kind != "f":
            break  # whole numbers are finite
        missing += int(np.isnan(piece).sum())
        infinite += int(np.isinf(piece).sum())
    return missing, infinite


def note(x: Any) -> str:
    """Return what people must know of values that are no finite numbers; empty where all are."""
    missing, infinite = not_finite(x)
    counts = [f"{missing:,} values are missing (NaN)"] if missing else []
    counts += [f"{infinite:,} values are infinite"] if infinite else []
    if not counts:
        return ""
    return (
        f"In X {' and '.join(counts)}: comparing groups of cells (differential expression) and the "
        "colours of these genes cannot be trusted. Next step: look where they come from, e.g. a "
        "logarithm of zero or a division by zero, and show the counts or clean values."
    )


def _pieces(x: Any) -> Iterator[np.ndarray[Any, Any]]:
    if sp.issparse(x):
        stored = x.data
    elif hasattr(x, "attrs") and "encoding-type" in x.attrs and not hasattr(x, "dtype"):
        stored = x["data"]  # sparse, in a file
    elif hasattr(x, "group"):
        stored = x.group["data"]  # sparse, of a backed AnnData
    elif hasattr(x, "compute"):
        yield from _pieces(x.compute())  # dask
        return
    else:
        stored = x
    row = stored.dtype.itemsize * int(np.prod(stored.shape[1:], dtype=np.int64))
    rows = max(1, _PIECE // max(1, row))
    for start in range(0, stored.shape[0], rows):
        yield np.asarray(stored[start : start + rows])
