"""Figures that a notebook shows without pyplot."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that shows itself as the last line of a cell.

    Jupyter shows a plain ``Figure`` only after pyplot was imported; pyplot would keep every
    figure in memory.
    """

    def _repr_png_(self) -> bytes:
        """Return the picture (IPython asks for it)."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()
