"""Publish datasets in CellxGene for the groups of the lab: ``labkit.publish(adata, "pbmc", ...)``.

``rules`` says what is allowed (the service asks it again), ``prepare`` checks and converts,
``thumbnail`` draws, ``client`` talks to the service, ``dataset`` is what a notebook holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData

    from labkit.portal.datasets.dataset import Catalogue, Published

__all__ = ["publish", "published"]


def publish(
    data: AnnData | str | Path,
    name: str,
    *,
    groups: Sequence[str] | None = None,
    title: str | None = None,
    description: str | None = None,
    organism: str | None = None,
    tissue: str | None = None,
    color: str | None = None,
    gene_names: str | None = None,
    timeout: float = 1800,
    progress: Callable[[str], None] | None = None,
) -> Published:
    """Publish single-cell data in CellxGene, for the groups you name.

    The data is checked and converted as ``labkit.cellxgene`` does it; your own data is never
    changed. Published again under the same name it becomes a new version; the versions before
    are kept, and ``roll_back`` returns to one. Data that is published already is not sent again:
    then title, groups and the like are changed.

    Parameters
    ----------
    data : anndata.AnnData, str or pathlib.Path
        Cells x genes with a 2-D embedding: an AnnData, an ``.h5ad`` file, a ``.zarr`` folder, or
        ``s3://bucket/key.h5ad``.
    name : str
        Name in the address: 1 to 48 small letters, digits, ``-`` and ``_``, a letter first.
    groups : sequence of str, optional
        Who may see it, besides you and the administrators: groups that you are in. Needed for a
        new dataset (``[]``: nobody else); None leaves those of a published one.
    title, description : str, optional
        For the catalogue; default is what it was, else the name.
    organism, tissue : str, optional
        For the catalogue; default is what ``obs`` says in columns of these names.
    color : str, optional
        Column of ``obs`` that colours the thumbnail; default is a column of cell types or
        clusters.
    gene_names : str, optional
        Column of ``var`` to name genes by, as in ``labkit.cellxgene``.
    timeout : float, default 1800
        Seconds that the service may take to check what was sent.
    progress : callable, optional
        Called with one line of text per step; default shows them in the notebook.

    Returns
    -------
    Published
        With ``url``, ``versions()``, ``update()``, ``roll_back()`` and ``unpublish()``.

    Raises
    ------
    RefusedError
        The name, the groups or another argument is not allowed; names all that are wrong.
    DataRefusedError
        The data cannot be shown in CellxGene; names every problem and the line to run.
    PublishError
        The service refused it (somebody else's name, too big for the machine, no room), or
        cannot be reached.

    Examples
    --------
    >>> labkit.publish(adata, "pbmc", title="Blood", groups=["imaging"])  # doctest: +SKIP
    """
    from labkit.portal.datasets.upload import publish_data
    from labkit.viewers.progress import shown

    with shown(progress) as say:
        return publish_data(
            data,
            name,
            groups=groups,
            title=title,
            description=description,
            organism=organism,
            tissue=tissue,
            color=color,
            gene_names=gene_names,
            timeout=timeout,
            progress=say,
        )


def published() -> Catalogue:
    """Return the published datasets that you may see; ``published()["pbmc"]`` is one of them.

    Raises
    ------
    PublishError
        The service cannot be reached.
    """
    from labkit.portal.datasets.client import Client
    from labkit.portal.datasets.dataset import Catalogue

    return Catalogue(Client.from_environment())
