"""What a notebook holds of published datasets: one, and the list of all that I may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.portal.datasets.client import Client
from labkit.portal.publishing.publication import Publication, Publications


class Published(Publication[Client]):
    """A published dataset.

    Attributes
    ----------
    name, title, description, owner : str
        Which one, and whose.
    organism, tissue : str
        What the catalogue says of it.
    groups : list of str
        Who may see it, besides its owner and administrators.
    version : int
        Number of the version that is shown.
    shape : tuple of int
        Cells x genes of that version.
    url : str
        Where it is.
    """

    noun = "dataset"
    link = "Open in CellxGene"
    fields = ("organism", "tissue")
    mark = "shown"
    columns = ("title", "cells", "genes", "source", "source_digest", "software")

    @property
    def shape(self) -> tuple[int, int]:
        """Cells x genes."""
        facts = self._state["version"]["facts"]
        return int(facts["cells"]), int(facts["genes"])

    def update(
        self,
        *,
        title: str | None = None,
        description: str | None = None,
        groups: Sequence[str] | None = None,
        organism: str | None = None,
        tissue: str | None = None,
    ) -> Published:
        """Change what the catalogue says and who may see it; the data stays.

        Raises
        ------
        PublishError
            A value is not allowed, or it is not yours to change.
        """
        texts = {"title": title, "description": description, "organism": organism, "tissue": tissue}
        return self._update(groups, **texts)

    def _version_row(self, version: Mapping[str, Any]) -> Sequence[object]:
        facts, source = version["facts"], version["source"]
        software = ", ".join(f"{name} {number}" for name, number in version["software"].items())
        return (
            *(version["title"], facts["cells"], facts["genes"]),
            *(source["name"] or source["kind"], source["digest"], software),
        )

    def _facts(self) -> list[tuple[str, str]]:
        cells, genes = self.shape
        seen = ", ".join(self.groups) or "only its owner and administrators"
        return [
            ("Data", f"{cells:,} cells × {genes:,} genes"),
            ("Version", f"{self.version}, {self._state['version']['created'][:10]}"),
            ("Owner", self.owner),
            ("Seen by", "nobody else: it is unpublished" if self.hidden else seen),
        ]


class Catalogue(Publications[Published]):
    """All published datasets that I may see: ``published()["pbmc"]`` is one of them.

    Attributes
    ----------
    user : str
        Who I am, for the portal.
    groups : list of str
        The groups that I am in, and may share with.
    """

    kind = "dataset that you may see"
    nothing = "No dataset is shared with you yet."
    key = "datasets"
    columns = ("title", "owner", "cells", "genes", "version", "seen by", "url")

    def _item(self, client: Client, state: Mapping[str, Any]) -> Published:
        return Published(client, state)

    def _row(self, one: Published) -> Sequence[object]:
        return one.title, one.owner, *one.shape, one.version, ", ".join(one.groups), one.url
