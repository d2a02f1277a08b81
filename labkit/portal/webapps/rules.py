"""What a member's web app may be called, hold and say: one list for notebook and portal.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Literal

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.portal.publishing.rules import Rules, Text

Kind = Literal["shiny", "dash"]

# Of an app's address; with the portal's own beginning it becomes a Unix account.
NAME_MOST = 22
RULES = Rules(
    noun="an app",
    name=re.compile(r"[a-z](?:-?[a-z0-9])*", re.ASCII),
    name_most=NAME_MOST,
    name_rule=f"up to {NAME_MOST} small letters, digits and single hyphens, a letter first",
    texts={"title": Text(60, needed=True), "description": Text(250)},
    needs_group=True,
    versions_most=200,
)
SOURCE = Text(300)  # what a version was made from
FILES_MOST = 2000
PATH_BYTES = 400
# The file that an app begins with -> what it is.
ENTRIES: dict[str, Kind] = {"app.R": "shiny", "server.R": "shiny", "app.py": "dash"}
_SEPARATORS = re.compile(r"[/\\]")


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
    kinds = {kind for entry, kind in ENTRIES.items() if entry in paths}
    if len(kinds) == 1:
        return kinds.pop(), []
    if not kinds:
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
