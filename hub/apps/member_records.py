"""What is kept of a member's app beside what all published things have, and where.

Standard library and pydantic: the catalogue of apps reads it at every start.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from hub.state.paths import Paths
from labkit.portal.webapps.rules import RULES, SOURCE
from services.appkit.published import records
from services.appkit.published.store import FolderStore, Layout

_FOLDER = "webapps"  # of the state folder
Source = Annotated[str, StringConstraints(max_length=SOURCE.most)]


class Version(records.Version):
    """One state of an app's files: it never changes.

    Attributes
    ----------
    kind : str
        ``shiny`` or ``dash``.
    files : int
        How many; ``size`` is the bytes of all.
    source : str
        What the author says it was made from: a folder's name, or a repository and its commit.
    """

    kind: Literal["shiny", "dash"]
    files: int = Field(ge=1)
    source: Source = ""


class MemberApp(records.Record[Version]):
    """A member's app: its files become a program of the portal's."""

    rules = RULES

    @model_validator(mode="after")
    def _can_run(self) -> MemberApp:
        if not self.groups:
            raise ValueError("it is for no group")
        if list(RULES.check_texts({"title": self.title, "description": self.description})):
            raise ValueError("its texts are not allowed")
        if self.version(self.current) is None:
            raise ValueError("it has no version that runs")
        return self

    @property
    def shown(self) -> Version:
        """The version that runs."""
        return next(one for one in self.versions if one.number == self.current)


LAYOUT = Layout(MemberApp, Version, "record.json")


def store(paths: Paths) -> FolderStore[MemberApp, Version]:
    """Return where all members' apps are."""
    return FolderStore(paths.state / _FOLDER, LAYOUT)


def read(paths: Paths) -> dict[str, MemberApp]:
    """Return all members' apps; one that is damaged is left out and logged."""
    return {app.name: app for app in store(paths).load()}
