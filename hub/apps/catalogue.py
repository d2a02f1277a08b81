"""Which apps a portal has: those that are shipped and on, and the lab's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from hub.apps import member_records, member_service
from hub.apps.app_paths import SHIPPED, AppPaths
from hub.apps.declaration import FILE, Service, ServiceName, name_problem
from hub.labfile.fields import Frozen, GroupName
from hub.labfile.read import read_as
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError


class Choice(Frozen):
    """What the administrator has said about one app."""

    on: bool = True
    groups: tuple[GroupName, ...] | None = None


class Choices(Frozen):
    """The file ``services.yaml`` of the state folder."""

    services: dict[ServiceName, Choice] = {}


@dataclass(frozen=True)
class App:
    """One app of the portal.

    Attributes
    ----------
    name : str
        Its name; its address is ``/services/<name>/``.
    folder : Path
        Where its code is.
    service : Service
        What its ``service.yaml`` says.
    groups : tuple of str
        Who may open it; empty: everybody.
    own : bool
        The lab's own; False: it comes with the portal.
    kind : str
        ``shiny`` or ``dash`` where it is a member's, which `services.member_apps` runs; else empty.
    """

    name: str
    folder: Path
    service: Service
    groups: tuple[str, ...]
    own: bool
    kind: str = ""

    @property
    def prefix(self) -> str:
        """Its path."""
        return f"/services/{self.name}/"

    def origin(self, settings: Settings) -> str:
        """Return its public origin; as JupyterHub's `subdomain_hook_idna` names a service's."""
        if settings.isolation == "path":
            return settings.url
        parts = settings.parts
        return f"{parts.scheme}://{self.name}--service.{parts.netloc}"

    def url(self, settings: Settings) -> str:
        """Return its public address."""
        return f"{self.origin(settings)}{self.prefix}"


def shipped() -> list[str]:
    """Return the apps that come with the portal, on or not."""
    return sorted(path.parent.name.replace("_", "-") for path in SHIPPED.glob(f"*/{FILE}"))


def shipped_folder(name: str) -> Path:
    """Return where a shipped app's code is; Python's packages have underscores."""
    return SHIPPED / name.replace("-", "_")


def read(settings: Settings, paths: Paths) -> tuple[list[App], list[Problem]]:
    """Return the apps that are on, and what is wrong with those that cannot be.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """
    apps: list[App] = []
    problems: list[Problem] = []
    try:
        choices = read_choices(paths)
    except ProblemsError as error:
        return [], list(error.problems)
    for name, folder, own in folders(paths):
        choice = choices.get(name)
        if choice is not None and not choice.on:
            continue
        try:
            app = load(name, folder, settings, own=own)
        except ProblemsError as error:
            problems += error.problems
            continue
        if choice is None and not app.service.default and not own:
            continue
        if choice is not None and choice.groups is not None:
            app = App(name, folder, app.service, choice.groups, own)
        apps.append(app)
    taken = {app.name for app in apps}
    for record in member_records.read(paths).values():
        if record.hidden or record.name in taken:
            continue
        try:
            apps.append(member_app(record, settings, paths))
        except ProblemsError as error:
            problems += error.problems
    return apps, problems


def member_app(record: member_records.MemberApp, settings: Settings, paths: Paths) -> App:
    """Return a member's app as the portal runs it.

    Raises
    ------
    ProblemsError
        It cannot run in this portal.
    """
    name, version = record.name, record.shown
    folder = member_records.store(paths).version_folder(name, version.number)
    service = member_service.service(record, settings.webapps, folder)
    problems = list(misfits(name, service, settings))
    if problems:
        raise ProblemsError(problems)
    return App(name, folder, service, record.groups, own=True, kind=version.kind)


def stamp(paths: Paths) -> tuple[tuple[str, int], ...]:
    """Return what changes whenever `read` may answer otherwise."""
    files = [AppPaths(paths).choices, *(folder / FILE for _, folder, _ in folders(paths))]
    files += member_records.store(paths).files()
    return tuple((str(file), file.stat().st_mtime_ns) for file in files if file.exists())


def find(name: str, settings: Settings, paths: Paths) -> App:
    """Return one app that is on.

    Raises
    ------
    ProblemsError
        There is none of that name, or its declaration is wrong.
    """
    apps, problems = read(settings, paths)
    for app in apps:
        if app.name == name:
            return app
    about = [problem for problem in problems if problem.where.startswith((f"{name}/", name))]
    if about:
        raise ProblemsError(about)
    existing = ", ".join(app.name for app in apps) or "none"
    raise ProblemsError([Problem(name, "there is no such app", f"there are: {existing}")])


def load(name: str, folder: Path, settings: Settings, *, own: bool) -> App:
    """Read one app's declaration and check it against the portal.

    Raises
    ------
    ProblemsError
        With all that is wrong with it.
    """
    wrong = name_problem(name)
    if wrong:
        raise ProblemsError([Problem(str(folder), wrong, "give the folder another name")])
    service = read_as(Service, folder / FILE, f"{name}/{FILE}")
    problems = list(misfits(f"{name}/{FILE} user_written", service, settings))
    if problems:
        raise ProblemsError(problems)
    return App(name, folder, service, service.groups, own)


def misfits(place: str, service: Service, settings: Settings) -> Iterator[Problem]:
    """Yield why a portal cannot run an app.

    Parameters
    ----------
    place : str
        What the problems call it.
    service : Service
        What is declared.
    settings : Settings
        The lab file.
    """
    if service.user_written and settings.isolation == "path":
        text = "with isolation: path a member's page could act as whoever opens it"
        hint = "give the portal own origins (isolation: subdomain), or leave this app out"
        yield Problem(place, text, hint)
    if service.user_written and os.geteuid() != 0:
        text = "a member's app needs an account of its own, which only root can give"
        yield Problem(place, text, "run the portal as root, or leave this app out")


def folders(paths: Paths) -> Iterator[tuple[str, Path, bool]]:
    """Yield the apps that there are, on or not: name, folder, whether it is the lab's own."""
    known = shipped()
    for name in known:
        yield name, shipped_folder(name), False
    own = AppPaths(paths).own
    for folder in sorted(own.iterdir()) if own.is_dir() else ():
        if (folder / FILE).is_file() and folder.name not in known:
            yield folder.name, folder, True


def read_choices(paths: Paths) -> dict[str, Choice]:
    """Return what the administrator has said, by app.

    Raises
    ------
    ProblemsError
        The file is wrong.
    """
    file = AppPaths(paths).choices
    return dict(read_as(Choices, file).services) if file.exists() else {}


def choose(paths: Paths, name: str, choice: Choice | None) -> None:
    """Note what the administrator says about an app; None: nothing."""
    choices = read_choices(paths)
    if choice is None:
        choices.pop(name, None)
    else:
        choices[name] = choice
    from io import StringIO

    out = StringIO()
    out.write("# Written by `labhub app`.\n")
    content = Choices(services=choices).model_dump(mode="json", exclude_none=True)
    YAML().dump(content, out)
    files.write_atomic(AppPaths(paths).choices, out.getvalue(), mode=0o640, sync=True)
