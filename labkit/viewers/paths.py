"""Where viewers find their programs and keep their files: folders of the user alone."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from labkit.base import files
from labkit.base.problems import LabkitError


class EnvironmentMissingError(LabkitError):
    """A program that a viewer needs is not installed where it is looked for."""


def program(environment: str, name: str) -> Path:
    """Find a program of a named environment.

    Parameters
    ----------
    environment : str
        Name of the environment, e.g. ``"cellxgene"``.
    name : str
        Name of the program in its ``bin`` folder, e.g. ``"python"``.

    Returns
    -------
    Path
        ``$LABHUB_ENVS/<environment>/bin/<name>``, or the same beside the environment that runs
        this code.

    Raises
    ------
    EnvironmentMissingError
        Where there is none; the message lists the places.
    """
    roots = [Path(sys.prefix).parent]
    if named := os.environ.get("LABHUB_ENVS"):
        roots.insert(0, Path(named))
    tried = [root / environment / "bin" / name for root in roots]
    for candidate in tried:
        if os.access(candidate, os.X_OK):
            return candidate
    places = "\n".join(f"  {candidate}" for candidate in tried)
    raise EnvironmentMissingError(
        f"The environment '{environment}' is not installed. Looked for:\n{places}\n"
        "Next step: ask your lab's admin to run `labhub up`, or set LABHUB_ENVS to the folder "
        "that holds the environments."
    )


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter (0700), and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def cache_folder(viewer: str) -> Path:
    """Return the user's cache folder of a viewer (``$XDG_CACHE_HOME/labkit/<viewer>``, 0700)."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    private_folder(base / "labkit")
    return private_folder(base / "labkit" / viewer)


def state_folder(viewer: str) -> Path:
    """Return the user's state folder of a viewer (``$XDG_STATE_HOME/labkit/<viewer>``, 0700)."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    private_folder(base / "labkit")
    return private_folder(base / "labkit" / viewer)


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone (0600), all or nothing."""
    files.write_atomic(path, text, mode=0o600)


def free_bytes(folder: Path) -> int:
    """Return the free space, in bytes, of the disk that holds a folder."""
    return shutil.disk_usage(folder).free
