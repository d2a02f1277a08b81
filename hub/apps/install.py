"""Add and remove apps while the portal runs: neither hub nor anybody's server is restarted."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hub.apps import catalogue, member_records
from hub.apps.app_paths import AppPaths, make_readable
from hub.apps.catalogue import App, Choice
from hub.apps.declaration import FILE, name_problem, thumbnail_of
from hub.labfile.schema import OAUTH_METHODS, Settings
from hub.sandbox.accounts import remove_system_account
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError
from labkit.base.remove import remove_tree
from labkit.base.units import format_size
from labkit.base.walk import Entry, TooDeepError, walk

_MOST_BYTES = 1 << 30  # of an app's own folder: data belongs elsewhere
_MOST_FILES = 20_000
_SKIPPED = frozenset({".git", "__pycache__", ".venv"})


def add(source: str, groups: Sequence[str] | None, settings: Settings, paths: Paths) -> App:
    """Declare an app; `hub.runtime.apps` puts it into force.

    Parameters
    ----------
    source : str
        Name of a shipped app, or the folder of one's own.
    groups : sequence of str or None
        Who may open it instead of those that its file names; None: those.
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.

    Returns
    -------
    App
        As it will run.

    Raises
    ------
    ProblemsError
        With all that is wrong; nothing was changed.
    """
    shipped = "/" not in source and source in catalogue.shipped()
    folder = catalogue.shipped_folder(source) if shipped else Path(source).resolve()
    name = source if shipped else folder.name
    if not (folder / FILE).is_file():
        known = ", ".join(catalogue.shipped()) or "none"
        text = f"there is no {FILE} in {folder}"
        raise ProblemsError([Problem(source, text, f"name its folder, or a shipped app: {known}")])
    if not shipped and name in catalogue.shipped():
        raise ProblemsError([Problem(name, "a shipped app has this name", "rename the folder")])
    if not shipped and name in member_records.read(paths):
        raise ProblemsError([Problem(name, "a member's app has this name", "rename the folder")])
    app = catalogue.load(name, folder, settings, own=not shipped)
    chosen = tuple(groups) if groups is not None else app.groups
    problems = [*unknown_groups(name, chosen, settings, paths), *_thumbnail(app)]
    problems += [] if shipped else _copy_problems(folder)
    if problems:
        raise ProblemsError(problems)
    AppPaths(paths).make()
    if not shipped:
        _copy(folder, AppPaths(paths).own / name)
    catalogue.choose(paths, name, Choice(groups=tuple(groups) if groups is not None else None))
    return catalogue.find(name, settings, paths)


def remove(name: str, settings: Settings, paths: Paths) -> None:
    """Declare an app gone; `hub.runtime.apps` puts it into force. Its data stay.

    Raises
    ------
    ProblemsError
        There is no such app.
    """
    own = AppPaths(paths).own / name
    if name in catalogue.shipped():
        catalogue.find(name, settings, paths)
        catalogue.choose(paths, name, Choice(on=False))
        return
    wrong = name_problem(name)
    member = member_records.read(paths).get(name)
    if member is not None and not member.hidden:
        member_records.store(paths).save(member.with_(hidden=True))
        return
    if wrong or not own.is_dir():
        existing = ", ".join(app.name for app in catalogue.read(settings, paths)[0]) or "none"
        raise ProblemsError([Problem(name, "there is no such app", f"there are: {existing}")])
    catalogue.choose(paths, name, None)
    gone = own.with_name(f".{name}.gone")
    remove_tree(gone)
    own.rename(gone)  # in one step: a half-removed app is none
    remove_tree(gone)


def forget(name: str, paths: Paths) -> None:
    """Delete what an app has stored, and its account; call it when the app is gone.

    Raises
    ------
    AccountError
        Its account is still in use.
    """
    app_paths = AppPaths(paths)
    for folder in (app_paths.data(name), app_paths.socket_folder(name)):
        remove_tree(folder)
    app_paths.address(name).unlink(missing_ok=True)
    if os.geteuid() == 0:
        remove_system_account(app_paths.account(name), "Labhub app")


def unknown_groups(
    name: str, groups: Sequence[str], settings: Settings, paths: Paths
) -> list[Problem]:
    """Return the problem of groups that neither the lab file nor the hub knows."""
    if settings.authentication.effective_method in OAUTH_METHODS:
        return []  # the provider says which there are
    known = set(settings.groups) | _groups_of_hub(paths)
    unknown = sorted(set(groups) - known)
    if not unknown:
        return []
    text = f"names groups that do not exist: {', '.join(unknown)}"
    existing = ", ".join(sorted(known)) or "none"
    hint = f"make them in the lab file or on the admin page; there are: {existing}"
    return [Problem(f"{name} groups", text, hint)]


def _groups_of_hub(paths: Paths) -> set[str]:
    rows = HubDatabase.in_force(paths).rows("SELECT name FROM groups")
    return {str(name) for (name,) in rows}


def _thumbnail(app: App) -> list[Problem]:
    if app.service.thumbnail is None or thumbnail_of(app.service, app.folder):
        return []
    text = f"{app.service.thumbnail} is not in the folder"
    return [Problem(f"{app.name}/{FILE} thumbnail", text, "name a picture that is there")]


def _wanted(folder: Path) -> Iterator[Entry]:
    """Yield what of an app's folder belongs to the app."""
    for entry in walk(folder, enter=lambda entry: entry.name not in _SKIPPED):
        if entry.name not in _SKIPPED:
            yield entry


def _copy_problems(folder: Path) -> list[Problem]:
    problems: list[Problem] = []
    size = count = 0
    try:
        for entry in _wanted(folder):
            path = folder / entry.path
            if entry.is_link:
                if not path.resolve().is_relative_to(folder):
                    text = f"is a link out of the folder, to {path.readlink()}"
                    problems.append(Problem(str(path), text, "copy the file instead"))
            elif not (entry.is_file or entry.is_folder):
                problems.append(Problem(str(path), "is neither a file nor a folder", "remove it"))
            size, count = size + entry.status.st_size, count + 1
    except TooDeepError as error:
        return [*problems, Problem(str(folder), str(error), "take them out of the app's folder")]
    if size > _MOST_BYTES or count > _MOST_FILES:
        text = f"has {format_size(size)} in {count} files: too much for an app's own folder"
        hint = f"keep data in a shared folder; at most {format_size(_MOST_BYTES)}"
        problems.append(Problem(str(folder), text, hint))
    return problems


def _copy(source: Path, target: Path) -> None:
    """Copy a folder in one step: who asks meanwhile sees the old one or the new one.

    Raises
    ------
    ProblemsError
        It was changed since it was looked at.
    """
    new, old = (target.with_name(f".{target.name}.{end}") for end in ("new", "old"))
    for leftover in (new, old):
        remove_tree(leftover)
    new.mkdir()
    for entry in _wanted(source):
        _copy_one(entry, new / entry.path)
    # The copy is looked at once more: nobody else can change that one.
    problems = _copy_problems(new)
    if problems:
        remove_tree(new)
        raise ProblemsError(problems)
    make_readable(new)
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise
    remove_tree(old)


def _copy_one(entry: Entry, place: Path) -> None:
    if entry.is_folder:
        place.mkdir()
    elif entry.is_link:
        place.symlink_to(os.readlink(entry.name, dir_fd=entry.folder))
    else:
        with os.fdopen(entry.open(), "rb") as source, place.open("xb") as target:
            shutil.copyfileobj(source, target)
            place.chmod(entry.status.st_mode & 0o777)
