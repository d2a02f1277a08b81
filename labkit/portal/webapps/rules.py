"""What a member's web app may be called, hold and say: one list for notebook and portal.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.portal.datasets.rules import check_groups

Kind = Literal["shiny", "dash"]

# Of an app's address; with the portal's own beginning it becomes a Unix account.
NAME = re.compile(r"[a-z](?:-?[a-z0-9])*", re.ASCII)
NAME_LENGTH = 22
NAME_RULE = (
    f"up to {NAME_LENGTH} small letters, digits and single hyphens, and begins with a letter"
)
# Longest text of each field, in characters.
TEXTS = {"title": 60, "description": 250, "source": 300}
FILES_MOST = 2000
PATH_BYTES = 400
# The file that an app begins with -> what it is.
ENTRIES: dict[str, Kind] = {"app.R": "shiny", "server.R": "shiny", "app.py": "dash"}
_SEPARATORS = re.compile(r"[/\\]")


def check_name(name: Any) -> Iterator[Problem]:
    """Yield what is wrong with the name of an app."""
    fits = isinstance(name, str) and NAME.fullmatch(name) and len(name) <= NAME_LENGTH
    if not fits:
        yield Problem("name", f"{name!r} is no name of an app.", f"A name has {NAME_RULE}.")


def check_texts(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with title, description and source; None is nothing said."""
    for field, most in TEXTS.items():
        value = fields.get(field)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            yield Problem(field, f"one line of at most {most} characters is needed.")
        elif field == "title" and not value.strip():
            yield Problem(field, "it is empty.")


def check_audience(
    groups: Any, own: Collection[str], *, admin: bool, kept: Iterable[str] = ()
) -> Iterator[Problem]:
    """Yield what is wrong with the groups that an app is for.

    Parameters
    ----------
    groups : Any
        What was asked for.
    own : collection of str
        The groups of who asks.
    admin : bool
        Whether an administrator asks, who may name any group.
    kept : iterable of str
        Groups that it is for already: they may stay.
    """
    yield from check_groups(groups, own, admin=admin, kept=kept)
    if isinstance(groups, list | tuple) and not groups:
        mine = ", ".join(sorted(own)) or "none, so ask an administrator"
        hint = "You may name any group." if admin else f"Yours are: {mine}."
        yield Problem("groups", "at least one group is needed.", hint)


def is_path(path: str) -> bool:
    """Return whether a file of an app may have this path, below the app's folder.

    No way out of the folder, nothing hidden, nothing that a terminal would not show.
    """
    parts = path.split("/")
    return (
        0 < len(path.encode("utf-8", "replace")) <= PATH_BYTES
        and path.isprintable()
        and all(part and part == part.strip() and not part.startswith(".") for part in parts)
        and not any(_SEPARATORS.search(part) for part in parts)
    )


def kind_of(paths: Collection[str]) -> tuple[Kind | None, list[Problem]]:
    """Return what sort of app a set of files is, or why it is none.

    Parameters
    ----------
    paths : collection of str
        Below the app's folder.
    """
    found = {kind for entry, kind in ENTRIES.items() if entry in paths}
    if len(found) == 1:
        return found.pop(), []
    if not found:
        text = "there is neither app.R (Shiny) nor app.py (Dash) in it."
        return None, [Problem("app", text, "Name the app's file or its folder.")]
    return None, [Problem("app", "there are files of Shiny and of Dash in it.", "Keep one kind.")]


def check_size(count: int, size: int, most: int) -> Iterator[Problem]:
    """Yield what is wrong with the number of files and their size.

    Parameters
    ----------
    count, size : int
        Files, and bytes of all of them.
    most : int
        Bytes that an app may have.
    """
    if count > FILES_MOST:
        yield Problem("app", f"{count} files are too many.", f"At most {FILES_MOST} are taken.")
    if size > most:
        yield Problem(
            "app",
            f"its files have {format_size(size)}, and at most {format_size(most)} are taken.",
            "Leave out what it does not read, or make its tables smaller.",
        )
