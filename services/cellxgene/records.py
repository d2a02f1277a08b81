"""What is kept of a published dataset beside what all published things have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from labkit.portal.datasets.rules import RULES
from services.appkit.person import Person
from services.appkit.published import records
from services.appkit.published.records import Frozen
from services.appkit.published.store import Layout

Text = Annotated[str, StringConstraints(max_length=500)]
# What may lie beside the data of a version.
THUMBNAIL, OPENING = "thumbnail.png", "opening.zip"


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


class Version(records.Version):
    """One state of the data, as it was published: provenance that never changes.

    Attributes
    ----------
    title : str
        What the dataset was called then.
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

    title: str
    source: Source
    software: dict[Text, Text] = Field(default_factory=dict, max_length=20)
    changes: tuple[tuple[Text, Text], ...] = Field((), max_length=2000)
    facts: Facts
    thumbnail: bool = False


class Dataset(records.Record[Version]):
    """A published dataset.

    Attributes
    ----------
    organism, tissue : str
        For the catalogue.
    """

    rules = RULES

    organism: str = ""
    tissue: str = ""


LAYOUT = Layout(Dataset, Version, "dataset.json", version_file="version.json", data="data.h5ad")


def described(dataset: Dataset, person: Person, base: str) -> dict[str, Any]:
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
        **dataset.described(person, f"{base}{dataset.name}/"),
        "version": shown.model_dump(mode="json") if shown else None,
        "thumbnail": thumbnail_url(dataset, base),
    }


def thumbnail_url(dataset: Dataset, prefix: str) -> str:
    """Return the address of the shown version's picture; empty where there is none."""
    shown = dataset.shown
    if shown is None or not shown.thumbnail:
        return ""
    return f"{prefix}_/thumbnails/{dataset.name}/{shown.number}.png"
