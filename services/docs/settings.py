"""Which folders are shown, and to whom: ``settings.json`` in the app's data folder, optional."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from labkit.portal.publishing.rules import is_group
from services.appkit import settings
from services.appkit.person import Person

OWN = "pages"
HELP = "labhub"  # the section of the portal's own documentation
_DOCS = Path(__file__).resolve().parents[2] / "docs"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z](?:-?[a-z0-9])*$", max_length=40)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Section(_Frozen):
    """One folder that is shown.

    Attributes
    ----------
    name : str
        Its path below the app's prefix.
    title : str
        As people read it.
    folder : Path
        Where its files are.
    groups : tuple of str
        Who may read it, of those who may open the app; empty: all of them.
    """

    name: Name
    title: str = Field(min_length=1, max_length=60)
    folder: Path
    groups: tuple[str, ...] = ()

    @field_validator("folder")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("the whole path is needed, from / on")
        return value

    @field_validator("groups")
    @classmethod
    def _are_groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [group for group in value if not is_group(group)]
        if wrong:
            raise ValueError(f"no name of a group: {', '.join(map(repr, wrong))}")
        return value

    def may_read(self, person: Person) -> bool:
        """Return whether somebody may read it; administrators read all."""
        return person.admin or not self.groups or bool(person.groups & set(self.groups))


class Settings(_Frozen):
    """What an administrator may set.

    Attributes
    ----------
    sections : tuple of Section
        The folders, in the order in which they are shown.
    """

    sections: tuple[Section, ...] = Field(min_length=1)

    @field_validator("sections")
    @classmethod
    def _have_names_of_their_own(cls, value: tuple[Section, ...]) -> tuple[Section, ...]:
        names = [section.name for section in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return value


def read(data: Path) -> tuple[Section, ...]:
    """Return the sections that the administrator has set.

    Parameters
    ----------
    data : Path
        The app's data folder. Without a file its folder ``pages`` is the one section; it is made.

    Raises
    ------
    ProblemsError
        With all that is wrong in the file.
    """
    chosen = settings.read(data, Settings)
    if chosen is not None:
        return chosen.sections
    (data / OWN).mkdir(exist_ok=True)
    return (Section(name=OWN, title="Documentation", folder=data / OWN),)


def shown(data: Path) -> tuple[Section, ...]:
    """Return the administrator's sections, and after them Labhub's own documentation.

    A section that is called `HELP` takes its place: a lab may have a help of its own.

    Parameters
    ----------
    data : Path
        The app's data folder.

    Raises
    ------
    ProblemsError
        With all that is wrong in the administrator's file.
    """
    sections = read(data)
    if any(section.name == HELP for section in sections):
        return sections
    return (*sections, Section(name=HELP, title="Labhub's help", folder=_DOCS))
