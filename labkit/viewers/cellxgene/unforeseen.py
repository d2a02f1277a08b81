"""What nobody foresaw in somebody's data, in words with a next step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from labkit.base.problems import LabkitError, Problem
from labkit.viewers.cellxgene.errors import DataRefusedError, NotEnoughMemoryError


@contextmanager
def explained(title: str, less_memory: Callable[[], str]) -> Iterator[None]:
    """Turn what unusual data makes pandas, anndata or h5py raise into a refusal.

    Parameters
    ----------
    title : str
        What the data is called.
    less_memory : callable
        Returns what to do where the memory does not suffice.

    Raises
    ------
    DataRefusedError
        Something was not foreseen; the text says what it was.
    NotEnoughMemoryError
        There was not enough memory.
    """
    try:
        yield
    except (LabkitError, ImportError):
        raise
    except MemoryError as error:
        raise NotEnoughMemoryError(
            f"Preparing '{title}' needed more memory than there is.\n{less_memory()}"
        ) from error
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), "no message")
        problem = Problem(
            "data",
            f"Something in it was not foreseen: {type(error).__name__}: {text}",
            "leave out what the message names, or build a small AnnData of what is to be shown: "
            "`anndata.AnnData(adata.X, adata.obs[['cell_type']], adata.var[[]], "
            "obsm={'X_umap': adata.obsm['X_umap']})`.",
        )
        raise DataRefusedError(f"'{title}'", [problem]) from error
