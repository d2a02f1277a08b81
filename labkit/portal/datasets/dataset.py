"""What a notebook holds of published datasets: one, and the list of all that I may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit.portal import collection
from labkit.portal.datasets.client import Client

if TYPE_CHECKING:
    import pandas as pd


class Published:
    """A published dataset.

    Attributes
    ----------
    name, title, owner : str
        Which one, and whose.
    groups : list of str
        Who may see it, besides its owner and administrators.
    version : int
        Number of the version that is shown.
    shape : tuple of int
        Cells x genes of that version.
    url : str
        Where it is.
    """

    def __init__(self, client: Client, told: Mapping[str, Any]) -> None:
        self._client = client
        self._told = dict(told)

    def __getattr__(self, name: str) -> Any:
        if name in ("name", "title", "description", "owner", "groups", "organism", "tissue"):
            return self._told[name]
        raise AttributeError(f"a published dataset has no {name!r}")

    @property
    def url(self) -> str:
        """Its address."""
        return str(self._told["url"])

    @property
    def version(self) -> int:
        """Number of the version that is shown."""
        return int(self._told["current"])

    @property
    def shape(self) -> tuple[int, int]:
        """Cells x genes."""
        facts = self._told["version"]["facts"]
        return int(facts["cells"]), int(facts["genes"])

    @property
    def hidden(self) -> bool:
        """Whether it was unpublished; its versions are kept."""
        return bool(self._told["hidden"])

    def versions(self) -> pd.DataFrame:
        """Return all versions: when, who, size, and what each was made from."""
        import pandas as pd

        told = self._client.ask("GET", f"datasets/{self.name}")
        self._told = told
        rows = [
            {
                "version": one["number"],
                "shown": one["number"] == told["current"],
                "created": one["created"],
                "author": one["author"],
                "title": one["title"],
                "cells": one["facts"]["cells"],
                "genes": one["facts"]["genes"],
                "bytes": one["size"],
                "sha256": one["sha256"],
                "source": one["source"]["name"] or one["source"]["kind"],
                "source_digest": one["source"]["digest"],
                "software": ", ".join(f"{k} {v}" for k, v in one["software"].items()),
            }
            for one in told["versions"]
        ]
        return pd.DataFrame(rows).set_index("version")

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
        given = {
            "title": title,
            "description": description,
            "organism": organism,
            "tissue": tissue,
            "groups": None if groups is None else list(groups),
        }
        return self._change({key: value for key, value in given.items() if value is not None})

    def roll_back(self, version: int) -> Published:
        """Show another version; the ones after it are kept."""
        return self._change({"current": version})

    def unpublish(self, *, delete: bool = False) -> None:
        """Take it off the catalogue; the versions are kept, and `republish` brings it back.

        Parameters
        ----------
        delete : bool, default False
            Delete all versions for good as well.
        """
        if delete:
            self._client.ask("DELETE", f"datasets/{self.name}")
        else:
            self._change({"hidden": True})

    def republish(self) -> Published:
        """Show it in the catalogue again."""
        return self._change({"hidden": False})

    def _change(self, fields: dict[str, Any]) -> Published:
        self._told = self._client.ask("PATCH", f"datasets/{self.name}", fields)
        return self

    def _facts(self) -> list[tuple[str, str]]:
        cells, genes = self.shape
        seen = ", ".join(self.groups) or "only its owner and administrators"
        return [
            ("Data", f"{cells:,} cells × {genes:,} genes"),
            ("Version", f"{self.version}, {self._told['version']['created'][:10]}"),
            ("Owner", self.owner),
            ("Seen by", "nobody else: it is unpublished" if self.hidden else seen),
        ]

    def __repr__(self) -> str:
        return collection.lines(self.title, self._facts(), self.url)

    def _repr_html_(self) -> str:
        """Return it as HTML; every value is escaped."""
        return collection.card(self.title, self._facts(), self.url, "Open in CellxGene")


class Catalogue(collection.Collection[Published]):
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

    def __init__(self, client: Client) -> None:
        told = client.ask("GET", "datasets")
        self.user = str(told["user"])
        self.groups = [str(group) for group in told["groups"]]
        super().__init__({one["name"]: Published(client, one) for one in told["datasets"]})

    def table(self) -> pd.DataFrame:
        """Return them as a table."""
        import pandas as pd

        columns = ["title", "owner", "cells", "genes", "version", "seen by", "url"]
        rows = [
            [one.title, one.owner, *one.shape, one.version, ", ".join(one.groups), one.url]
            for one in self
        ]
        return pd.DataFrame(rows, columns=columns, index=pd.Index(list(self._all), name="name"))
