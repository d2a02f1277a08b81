"""``labhub app add`` of a bare Shiny or Dash app: the administrator publishes it for the lab."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hub.apps import catalogue, install
from hub.apps.catalogue import App
from hub.apps.declaration import FILE
from hub.apps.members import package as packages
from hub.apps.members.publish import Announcement, AppPublisher
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from labkit.portal.webapps.package import collect
from labkit.portal.webapps.rules import ENTRIES
from services.appkit.person import Person

# Whose word the machine's administrator has: all rights, and owner of what is the lab's.
LAB = Person("", admin=True)


def is_webapp(source: str) -> bool:
    """Return whether a place is a Shiny or Dash app that says nothing else of itself."""
    place = Path(source)
    if place.is_file():
        return place.name in ENTRIES
    return not (place / FILE).exists() and any((place / entry).is_file() for entry in ENTRIES)


def add(
    source: str,
    name: str | None,
    groups: Sequence[str] | None,
    title: str | None,
    settings: Settings,
    paths: Paths,
) -> App:
    """Make a folder a member's app, or its next version; `labhub app` puts it into force.

    Parameters
    ----------
    source : str
        The app's folder, or its one file.
    name : str or None
        In its address; None: the folder's name.
    groups : sequence of str or None
        Who may open it; None leaves those of an app that is there.
    title : str or None
        On its card.
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.

    Raises
    ------
    ProblemsError
        With all that is wrong; nothing was changed.
    """
    package = collect(source, settings.webapps.size)
    place = Path(source).resolve()
    name = name or (place.parent if place.is_file() else place).name
    said = {"title": title, "groups": tuple(groups) if groups is not None else None}
    wanted = Announcement(
        **{key: value for key, value in said.items() if value is not None},
        source=f"folder {package.root.name}",
        size=package.size,
        files=len(package.files),
        kind=package.kind,
    )
    publisher = AppPublisher(settings, paths)
    own_problems = [*package.problems, *publisher.problems(LAB, name, wanted)]
    problems = [*own_problems, *install.unknown_groups(name, groups or (), settings, paths)]
    if problems:
        raise ProblemsError(problems)
    stream, archive = packages.incoming(paths)
    try:
        with stream:
            package.write(stream)
        publisher.publish(LAB, name, wanted, archive)
    finally:
        archive.unlink(missing_ok=True)
    return catalogue.find(name, settings, paths)
