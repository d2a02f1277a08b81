"""Jobs, as a notebook shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.jobs.job import Job


class Jobs(list["Job"]):
    """Jobs, shown as a table."""

    def __repr__(self) -> str:
        from labkit.jobs.notebook.text import listing

        return listing(self)

    def _repr_html_(self) -> str:
        from labkit.jobs.notebook.card import listing

        return listing(self)
