"""What is kept of a published thing: the record itself, and its versions, which never change.

Standard library and pydantic: the hub reads records at every start.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from labkit.portal.publishing.rules import SHA256, Rules, is_group
from services.appkit.person import Person

Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256.pattern}$")]


class Frozen(BaseModel):
    """Immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Version(Frozen):
    """One state of a published thing: it never changes.

    Attributes
    ----------
    number : int
        Counts from 1.
    created : str
        When, in UTC (ISO 8601).
    author : str
        Who.
    size : int
        In bytes.
    sha256 : str
        Of what was sent.
    """

    number: int = Field(ge=1)
    created: str
    author: str
    size: int = Field(ge=0)
    sha256: Digest


V = TypeVar("V", bound=Version)


class Record(Frozen, Generic[V]):
    """A published thing; each kind adds its own.

    Attributes
    ----------
    name : str
        In its address.
    owner : str
        Who has published it first; empty: the lab, whose administrators look after it.
    groups : tuple of str
        Who may open it, besides the owner and administrators.
    title, description : str
        For people.
    created : str
        When it was first published, in UTC (ISO 8601).
    current : int
        Number of the version that is shown; 0 while the first is being stored.
    hidden : bool
        Unpublished; its versions are kept.
    versions : tuple of Version
        By number.
    """

    rules: ClassVar[Rules]

    name: str
    owner: str
    groups: tuple[str, ...] = ()
    title: str
    description: str = ""
    created: str
    current: int = Field(0, ge=0)
    hidden: bool = False
    versions: tuple[V, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.rules.is_name(self.name):
            raise ValueError(f"{self.name!r} is no name of {self.rules.noun}")
        if not all(is_group(group) for group in self.groups):
            raise ValueError("a group's name is not allowed")
        if self.current and self.version(self.current) is None:
            raise ValueError(f"there is no version {self.current}")
        return self

    def version(self, number: int) -> V | None:
        """Return a version by its number."""
        return next((one for one in self.versions if one.number == number), None)

    @property
    def shown(self) -> V | None:
        """The version that is current."""
        return self.version(self.current)

    def may_open(self, person: Person) -> bool:
        """Return whether a person may open it, and know of it."""
        if self.may_change(person):
            return True
        return not self.hidden and bool(person.groups & set(self.groups))

    def may_change(self, person: Person) -> bool:
        """Return whether a person may publish versions, roll back and unpublish."""
        return person.admin or (bool(self.owner) and person.name == self.owner)

    def with_(self, **changes: Any) -> Self:
        """Return a copy with other values, checked again."""
        return self.model_validate({**dict(self), **changes})

    def not_yours(self) -> str:
        """Return what somebody is told who may open it and not change it."""
        owner = self.owner or "the lab"
        return f"'{self.name}' is {owner}'s: only they and administrators change it."

    def described(self, person: Person, url: str) -> dict[str, Any]:
        """Return what a person who may open it is told of it, as JSON knows it.

        Parameters
        ----------
        person : Person
            Who is told.
        url : str
            Where it is.
        """
        fields = self.model_dump(mode="json", exclude={"versions"})
        return {**fields, "url": url, "may_change": self.may_change(person)}

    def described_versions(self) -> list[dict[str, Any]]:
        """Return its versions, as JSON knows them."""
        return [one.model_dump(mode="json") for one in self.versions]
