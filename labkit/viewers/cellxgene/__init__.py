"""CellxGene: see cells in the browser, straight from a notebook.

``labkit.cellxgene(adata)`` is the only name a user needs; the modules below it do one step each:
``source`` reads, ``clean`` checks, ``copies`` converts, ``memory`` estimates, ``process`` runs,
``card`` shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from labkit.viewers.cellxgene.card import Card

__all__ = ["CellxGene", "cellxgene"]


class CellxGene:
    """Open data in CellxGene: ``labkit.cellxgene(adata)``.

    Also ``labkit.cellxgene.running()`` and ``labkit.cellxgene.stop_all()``.
    """

    def __call__(
        self,
        data: AnnData | str | Path,
        port: int = 5005,
        *,
        title: str | None = None,
        gene_names: str | None = None,
        annotations: bool | str | Path = True,
        force: bool = False,
        timeout: float = 600,
        progress: Callable[[str], None] | None = None,
    ) -> Card:
        """Show single-cell data in CellxGene and return a card with the link.

        The data is checked first. What CellxGene cannot read is converted in a copy in your
        cache folder, and the card says what was changed; your own data is never changed. Called
        again on the same data, from this or another notebook, it returns the viewer that runs.

        Parameters
        ----------
        data : anndata.AnnData, str or pathlib.Path
            Cells x genes with at least one 2-D embedding (e.g. ``sc.tl.umap``): an AnnData (in
            memory, backed or a view; dense or sparse), an ``.h5ad`` file or a ``.zarr`` folder.
        port : int, default 5005
            Port on 127.0.0.1, from 1024 to 65535; the next free one is taken where it is busy.
        title : str, optional
            Name to show; default is the file's name.
        gene_names : str, optional
            Column of ``var`` to name genes by, e.g. ``"feature_name"`` where the index holds
            Ensembl IDs.
        annotations : bool, str or pathlib.Path, default True
            Where labels and gene sets that you make in CellxGene are kept: True is a folder in
            ``~/cellxgene-annotations``, a path is that folder, False switches them off.
        force : bool, default False
            Open it even where the memory will not do.
        timeout : float, default 600
            Seconds to wait until CellxGene answers.
        progress : callable, optional
            Called with one line of text per step; default shows them in the notebook.

        Returns
        -------
        Card
            With ``url``, ``status()``, ``stop()``, ``log()`` and ``labels()``.

        Raises
        ------
        DataRefusedError
            The data cannot be shown; names every problem and the line to run.
        NotEnoughMemoryError
            It would not fit into the memory that is left.
        StartFailedError
            CellxGene died or did not answer; with the cause and the end of its log.
        EnvironmentMissingError
            CellxGene is not installed.
        ValueError
            An argument is wrong; names all that are.

        Examples
        --------
        >>> labkit.cellxgene(adata)  # doctest: +SKIP
        >>> labkit.cellxgene("results/pbmc.h5ad", port=5006)  # doctest: +SKIP
        """
        from labkit.viewers.cellxgene.launch import open_cellxgene
        from labkit.viewers.progress import shown

        with shown(progress) as say:
            return open_cellxgene(
                data,
                port,
                title=title,
                gene_names=gene_names,
                annotations=annotations,
                force=force,
                timeout=timeout,
                progress=say,
            )

    def running(self) -> list[Card]:
        """Return the cards of all your viewers that run, also those of other notebooks."""
        from labkit.viewers.cellxgene.card import Card
        from labkit.viewers.cellxgene.process import running

        return [Card(record) for record in running()]

    def stop_all(self) -> int:
        """Stop all your viewers and return how many there were."""
        cards = self.running()
        for card in cards:
            card.stop()
        return len(cards)

    def __repr__(self) -> str:
        return "labkit.cellxgene: call it with an AnnData or a path; see help(labkit.cellxgene)"


cellxgene = CellxGene()
