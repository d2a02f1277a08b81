"""Say what CellxGene's errors mean: several of them name something else than the cause."""

from __future__ import annotations

_TAKEN = "is in use"  # of CellxGene and of werkzeug, each in a sentence of its own
_CAUSES = (
    ("No module named", "its environment is damaged. Ask your admin to run `labhub up` again."),
    ("MemoryError", "there was not enough memory for the data."),
    ("Out of memory", "there was not enough memory for the data."),
    ("Unable to allocate", "there was not enough memory for the data."),
    (_TAKEN, "other programs took the ports that were chosen. Choose one further away: "
     "`labkit.cellxgene(data, port=6005)`."),
    ("No space left on device", "the disk is full. Remove files you no longer need."),
    ("Permission denied", "a file may not be read or written; the log names it."),
    ("Unable to read genesets CSV", "the file gene-sets.csv in your labels folder is damaged: "
     "rename it and call `labkit.cellxgene` again."),
    ("No valid layout data", "the data has no 2-D embedding. Run "
     "`sc.pp.neighbors(adata); sc.tl.umap(adata)`."),
    ("must be unique", "names of cells, genes or columns are not unique."),
    ("Annotations of type", "a column of obs or var has a type that CellxGene cannot show."),
    ("did not understand one of the types", "a column of obs or var has a type with gaps that "
     "CellxGene cannot show."),
    ("Unable to synchronously open file", "the h5ad file is cut off or damaged."),
    ("File must be in the .h5ad format", "anndata in CellxGene's environment cannot read the "
     "file: load it here and pass the AnnData, `labkit.cellxgene(anndata.read_h5ad(path))`."),
    ("File not found or is inaccessible", "anndata in CellxGene's environment cannot read the "
     "file: load it here and pass the AnnData, `labkit.cellxgene(anndata.read_h5ad(path))`."),
)  # fmt: skip


def port_taken(log: str) -> bool:
    """Return whether CellxGene found its port taken, by the end of its log."""
    return _TAKEN in log


def explain(log: str, *, ended: bool, killed: bool) -> str:
    """Return the likely cause in plain words.

    Parameters
    ----------
    log : str
        End of CellxGene's log.
    ended : bool
        Whether the process ended by itself.
    killed : bool
        Whether the kernel has killed a process of this server meanwhile, for want of memory.
    """
    if ended and killed:
        return (
            "the memory of your server ran out, and it was killed. Show fewer cells or genes, or "
            "take a server with more memory."
        )
    for sign, cause in _CAUSES:
        if sign in log:
            return cause
    if ended and "Error" not in log and "Traceback" not in log:
        return (
            "it was ended from outside, without an error of its own, and no kill for want of "
            "memory was counted: a person may have done it. Start it again."
        )
    return "not one labkit knows; the log says more."
