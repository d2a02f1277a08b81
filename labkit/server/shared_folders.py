"""The lab's folders in a person's home, for the file browser: ``~/shared`` and ``~/scratch``."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

NAME = "shared"


def folders() -> dict[str, Path]:
    """Return the shared folders that this server sees, by their names in ``~/shared``."""
    try:
        named = [Path(str(one)) for one in json.loads(os.environ["LABHUB_SHARED_FOLDERS"])]
    except (KeyError, ValueError, TypeError):
        return {}
    given: dict[str, Path] = {}
    for path in named:
        if not path.is_dir():
            continue
        name = path.name if path.name not in given else "-".join(path.parts[1:])
        given[name] = path
    return given


def link(home: Path) -> list[str]:
    """Put the links into a home, and take away those that lead nowhere any more.

    What the person has put there under such a name stays.

    Parameters
    ----------
    home : Path
        The person's.

    Returns
    -------
    list of str
        Names of the links that were made now.

    Raises
    ------
    OSError
        The home cannot be written, or ``shared`` is no folder.
    """
    scratch = os.environ.get("LABHUB_SCRATCH", "")
    if scratch and Path(scratch).is_dir():
        with contextlib.suppress(FileExistsError):
            (home / "scratch").symlink_to(scratch, target_is_directory=True)
    wanted, place = folders(), home / NAME
    if not wanted and not place.is_dir():
        return []
    place.mkdir(mode=0o700, exist_ok=True)
    for entry in place.iterdir():
        if entry.is_symlink() and not entry.exists():
            entry.unlink()
    made = []
    for name, path in wanted.items():
        with contextlib.suppress(FileExistsError):
            (place / name).symlink_to(path, target_is_directory=True)
            made.append(name)
    return made
