"""The card that a notebook cell shows: link, status, size, what was changed, stop."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from labkit.base.units import format_size
from labkit.viewers.cellxgene import process

if TYPE_CHECKING:
    import pandas as pd

_STYLE = (
    "border:1px solid var(--jp-border-color1,#bdbdbd);border-radius:8px;padding:12px 16px;"
    "max-width:44rem;font-family:var(--jp-ui-font-family,sans-serif);line-height:1.5"
)
_BUTTON = (
    "display:inline-block;padding:6px 14px;border-radius:6px;background:#0b5fad;color:#fff;"
    "text-decoration:none;font-weight:600"
)


def link(port: int) -> str:
    """Return the address of a viewer, with the slash at its end that CellxGene needs."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix:
        return f"{prefix.rstrip('/')}/proxy/{port}/"
    return f"http://127.0.0.1:{port}/"


class Card:
    """A CellxGene that was opened.

    Attributes
    ----------
    url : str
        Its address. Below a hub it starts with ``/``: open it on the portal's own address.
    port : int
        Its port on 127.0.0.1.
    title : str
        Name of the data.
    shape : tuple of int
        Cells x genes.
    changes : list of (str, str)
        What was changed for CellxGene: place and deed. Your own data is never changed.
    notes : list of str
        What is worth knowing.
    """

    def __init__(self, record: process.Record, reused: bool = False):
        self._record = record
        self._reused = reused

    @property
    def url(self) -> str:
        """Address of the viewer."""
        return link(self._record.port)

    @property
    def port(self) -> int:
        """Port of the viewer on 127.0.0.1."""
        return self._record.port

    @property
    def title(self) -> str:
        """Name of the data."""
        return self._record.title

    @property
    def shape(self) -> tuple[int, int]:
        """Cells x genes."""
        return self._record.shape

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What was changed in the copy that CellxGene shows: place and deed."""
        return [(where, what) for where, what in self._record.changes]

    @property
    def notes(self) -> list[str]:
        """What is worth knowing."""
        return list(self._record.notes)

    def status(self) -> str:
        """Return ``"running"`` or ``"stopped"``."""
        return "stopped" if self._record.process is None else "running"

    def memory(self) -> int:
        """Return the memory it holds now, in bytes; 0 once stopped."""
        running = self._record.process
        try:
            return 0 if running is None else int(running.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0  # ended this moment

    def stop(self) -> None:
        """Stop the viewer and free its memory; labels you made are kept."""
        process.stop(self._record)

    def log(self, lines: int = 20) -> str:
        """Return the end of the viewer's log."""
        return process.log_tail(self._record, lines)

    def labels(self) -> pd.DataFrame:
        """Return the labels you made in CellxGene: one row per cell.

        Examples
        --------
        >>> adata.obs["my_type"] = card.labels()["my_type"]  # doctest: +SKIP
        """
        from labkit.viewers.cellxgene import labels

        if not self._record.labels:
            raise ValueError("Labels are switched off for this viewer.")
        return labels.read(Path(self._record.labels))

    def _facts(self) -> list[tuple[str, str]]:
        record = self._record
        status = self.status()
        if status == "running":
            status += f", {format_size(self.memory())} of memory"
        facts = [
            ("Data", f"{record.title}: {record.shape[0]:,} cells × {record.shape[1]:,} genes"),
            ("Status", status + (" (was open already)" if self._reused else "")),
        ]
        if record.labels:
            facts.append(("Your labels", record.labels))
        return facts

    def __repr__(self) -> str:
        """Return the card as text."""
        lines = [f"CellxGene  {self.url}"]
        lines += [f"  {name:<12} {value}" for name, value in self._facts()]
        if self.changes:
            lines.append("  Changed in the copy that is shown (your data is as it was):")
            lines += [f"    {where}: {what}" for where, what in self.changes]
        lines += [f"  Note: {note}" for note in self.notes]
        lines.append("  card.stop() ends it · card.labels() brings your labels back")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the card as HTML; every value is escaped."""
        running = self.status() == "running"
        facts = "".join(
            f"<tr><th scope='row' style='text-align:left;padding-right:1rem'>{html.escape(name)}"
            f"</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts()
        )
        button = (
            f"<a style='{_BUTTON}' href='{html.escape(self.url)}' target='_blank' "
            "rel='noopener'>Open CellxGene</a>"
            if running
            else "<em>Run <code>labkit.cellxgene(…)</code> again to open it.</em>"
        )
        changes = "".join(
            f"<tr><td style='text-align:left'><code>{html.escape(where)}</code></td>"
            f"<td style='text-align:left'>{html.escape(what)}</td></tr>"
            for where, what in self.changes
        )
        if changes:
            changes = (
                f"<details><summary>{len(self.changes)} changed for CellxGene (in a copy; your "
                f"data is as it was)</summary><table>{changes}</table></details>"
            )
        notes = "".join(f"<p style='margin:4px 0'>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<div style='{_STYLE}'><table style='margin:0 0 8px'>{facts}</table>{button} "
            f"<code style='margin-left:8px'>{html.escape(self.url)}</code>{notes}{changes}</div>"
        )
