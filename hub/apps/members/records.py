"""What is kept of a member's app: the app itself, and its versions, which never change.

Standard library and pydantic: the catalogue of apps reads it at every start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from hub.apps.declaration import ServiceName
from hub.labfile.fields import Frozen
from hub.state.paths import Paths
from labkit.base.files import write_atomic
from labkit.portal.datasets.rules import SHA256, is_group
from labkit.portal.webapps.rules import TEXTS

log = logging.getLogger(__name__)

FILE = "record.json"
_FOLDER = "webapps"  # of the state folder
Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256.pattern}$")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=TEXTS["title"])]
Description = Annotated[str, StringConstraints(max_length=TEXTS["description"])]
Source = Annotated[str, StringConstraints(max_length=TEXTS["source"])]


class Version(Frozen):
    """One state of an app's files: it never changes.

    Attributes
    ----------
    number : int
        Counts from 1.
    created : str
        When, in UTC (ISO 8601).
    author : str
        Who.
    kind : str
        ``shiny`` or ``dash``.
    files, size : int
        How many, and their bytes.
    sha256 : str
        Of the archive that was sent.
    source : str
        What the author says it was made from: a folder's name, or a repository and its commit.
    """

    number: int = Field(ge=1)
    created: str
    author: str
    kind: Literal["shiny", "dash"]
    files: int = Field(ge=1)
    size: int = Field(ge=0)
    sha256: Digest
    source: Source = ""


class Record(Frozen):
    """A member's app.

    Attributes
    ----------
    name : str
        In its address.
    owner : str
        Who has published it first; empty: the lab, whose administrators look after it.
    groups : tuple of str
        Who may open it.
    title, description : str
        For its card.
    created : str
        When it was first published, in UTC (ISO 8601).
    current : int
        Number of the version that runs.
    hidden : bool
        Unpublished: nobody can open it; its files are kept.
    versions : tuple of Version
        By number.
    """

    name: ServiceName
    owner: str
    groups: tuple[str, ...] = Field(min_length=1)
    title: Title
    description: Description = ""
    created: str
    current: int
    hidden: bool = False
    versions: tuple[Version, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not all(is_group(one) for one in self.groups):
            raise ValueError("a group's name is not allowed")
        if not any(one.number == self.current for one in self.versions):
            raise ValueError(f"there is no version {self.current}")
        return self

    @property
    def shown(self) -> Version:
        """The version that runs."""
        return next(one for one in self.versions if one.number == self.current)

    def with_(self, **changes: object) -> Record:
        """Return a copy with other values, checked again."""
        return Record.model_validate({**dict(self), **changes})


def folder(paths: Paths) -> Path:
    """Return where all members' apps are."""
    return paths.state / _FOLDER


def version_folder(paths: Paths, name: str, number: int) -> Path:
    """Return where the files of a version are."""
    return folder(paths) / name / "versions" / str(int(number))


def files(paths: Paths) -> Iterator[Path]:
    """Yield the files in which the records are."""
    yield from sorted(folder(paths).glob(f"[a-z]*/{FILE}"))


def read(paths: Paths) -> dict[str, Record]:
    """Return all members' apps; one that is damaged is left out and logged."""
    found = {}
    for file in files(paths):
        try:
            record = Record.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            log.error("%s is damaged and is left out: %s", file, error)
            continue
        if record.name == file.parent.name:
            found[record.name] = record
    return found


def save(paths: Paths, record: Record) -> None:
    """Keep what may change of an app, all or nothing."""
    text = record.model_dump_json(indent=1)
    write_atomic(folder(paths) / record.name / FILE, text, mode=0o600, sync=True)
