"""What is kept of a published dataset: the dataset itself, and its versions, which never change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from labkit.portal.datasets.rules import NAME, SHA256, is_group
from services.appkit.identity import Person

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256.pattern}$")]
Text = Annotated[str, StringConstraints(max_length=500)]


class Frozen(BaseModel):
    """A record: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Frozen):
    """What a version was made from.

    Attributes
    ----------
    kind : str
        ``file``, ``folder`` (zarr), ``s3`` or ``memory`` (an AnnData in a notebook).
    name : str
        Its file name; empty where it has none.
    digest : str
        ``sha256:...`` of a file, ``blake2b:...`` of the values of other data.
    """

    kind: Literal["file", "folder", "s3", "memory"]
    name: Annotated[str, StringConstraints(max_length=255)] = ""
    digest: Annotated[str, StringConstraints(pattern=r"^(sha256|blake2b):[0-9a-f]{16,128}$")]


class Facts(Frozen):
    """What the service itself has read from the file.

    Attributes
    ----------
    cells, genes : int
        The shape.
    need : int
        Memory that CellxGene is expected to take for it, in bytes.
    embeddings, columns : tuple of str
        What cells can be drawn and coloured by.
    """

    cells: int = Field(ge=0)
    genes: int = Field(ge=0)
    need: int = Field(ge=0)
    embeddings: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class Version(Frozen):
    """One state of the data, as it was published: provenance that never changes.

    Attributes
    ----------
    number : int
        Counts from 1.
    created : str
        When, in UTC (ISO 8601).
    author : str
        Who.
    title : str
        What the dataset was called then.
    size, sha256 : int, str
        Of the h5ad file that is served, in bytes.
    source : Source
        What it was made from.
    software : dict
        Versions: of the author's side, and of CellxGene here.
    changes : tuple of (str, str)
        What was changed for CellxGene: place and deed.
    facts : Facts
        What was read from the file.
    thumbnail : bool
        Whether there is a picture.
    """

    number: int = Field(ge=1)
    created: str
    author: str
    title: str
    size: int = Field(ge=1)
    sha256: Digest
    source: Source
    software: dict[Text, Text] = Field(default_factory=dict, max_length=20)
    changes: tuple[tuple[Text, Text], ...] = Field((), max_length=2000)
    facts: Facts
    thumbnail: bool = False


class Dataset(Frozen):
    """A published dataset.

    Attributes
    ----------
    name : str
        In its address.
    owner : str
        Who has published it first.
    groups : tuple of str
        Who may see it, besides the owner and administrators.
    title, description, organism, tissue : str
        For the catalogue.
    created : str
        When it was first published, in UTC (ISO 8601).
    current : int
        Number of the version that is shown; 0 while the first is being stored.
    hidden : bool
        Taken off the catalogue; its files are kept.
    versions : tuple of Version
        By number.
    """

    name: Name
    owner: str
    groups: tuple[str, ...] = ()
    title: str
    description: str = ""
    organism: str = ""
    tissue: str = ""
    created: str
    current: int = 0
    hidden: bool = False
    versions: tuple[Version, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not all(is_group(one) for one in self.groups):
            raise ValueError("a group's name is not allowed")
        if self.current and self.version(self.current) is None:
            raise ValueError(f"there is no version {self.current}")
        return self

    def version(self, number: int) -> Version | None:
        """Return a version by its number."""
        return next((one for one in self.versions if one.number == number), None)

    @property
    def shown(self) -> Version | None:
        """The version that is shown."""
        return self.version(self.current)

    def may_open(self, person: Person) -> bool:
        """Return whether a person may see the data."""
        if self.may_change(person):
            return True
        return not self.hidden and bool(person.groups & set(self.groups))

    def may_change(self, person: Person) -> bool:
        """Return whether a person may publish versions, roll back and unpublish."""
        return person.admin or person.name == self.owner

    def with_(self, **changes: Any) -> Dataset:
        """Return a copy with other values, checked again."""
        return Dataset(**{**dict(self), **changes})


def described(dataset: Dataset, person: Person, base: str) -> Mapping[str, Any]:
    """Return what a person who may open a dataset is told of it, as JSON knows it.

    Parameters
    ----------
    dataset : Dataset
        Which one.
    person : Person
        Who is told.
    base : str
        Public address of the app, with its prefix.
    """
    shown = dataset.shown
    return {
        **dataset.model_dump(mode="json", exclude={"versions"}),
        "url": f"{base}{dataset.name}/",
        "may_change": dataset.may_change(person),
        "version": shown.model_dump(mode="json") if shown else None,
        "thumbnail": thumbnail_url(dataset, base),
    }


def thumbnail_url(dataset: Dataset, prefix: str) -> str:
    """Return the address of the shown version's picture; empty where there is none."""
    shown = dataset.shown
    if shown is None or not shown.thumbnail:
        return ""
    return f"{prefix}_/thumbnails/{dataset.name}/{shown.number}.png"
