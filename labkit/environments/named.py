"""Further environments of one's own, each beside the lab's and each a kernel; made by uv."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.base.remove import remove_tree
from labkit.environments.personal import EnvironmentChangeError, folder, installed
from labkit.viewers.paths import program

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?")
_RESERVED = "personal-"
_ALWAYS = ("ipykernel>=6.29", "pip>=25")  # a kernel, and what people add more with
LAB_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class NamedEnvironment:
    """An environment that a person has made.

    Attributes
    ----------
    name : str
        What it is called.
    folder : Path
        Where it lies.
    """

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    def freeze(self) -> list[str]:
        """Return its packages as ``name==version``, sorted."""
        packages = next(self.folder.glob("lib/python3*/site-packages"), self.folder)
        return [f"{name}=={version}" for name, version in sorted(installed(packages).items())]


def environments() -> Iterator[NamedEnvironment]:
    """Yield the person's environments, but for the personal layer, by name."""
    top = folder()
    for entry in sorted(top.iterdir()) if top.is_dir() else ():
        one = NamedEnvironment(entry.name, entry)
        if not entry.name.startswith((_RESERVED, ".")) and os.access(one.python, os.X_OK):
            yield one


def find(name: str) -> NamedEnvironment:
    """Return one of the person's environments.

    Raises
    ------
    EnvironmentChangeError
        There is none of that name.
    """
    known = {one.name: one for one in environments()}
    if name not in known:
        names = ", ".join(known) or "none yet"
        raise EnvironmentChangeError(f"There is no environment {name!r}. Yours: {names}.")
    return known[name]


def create(name: str, packages: Sequence[str] = (), python: str = LAB_VERSION) -> NamedEnvironment:
    """Make an environment with its own packages and a kernel.

    Parameters
    ----------
    name : str
        What it is called: small letters, digits, ``.``, ``_`` and ``-``.
    packages : sequence of str
        What is installed, as pip takes it (``"cellpose>=3"``).
    python : str
        Version of Python.

    Returns
    -------
    NamedEnvironment
        What was made.

    Raises
    ------
    EnvironmentChangeError
        The name cannot be used, or uv could not install it; nothing is left behind.
    """
    if not _NAME.fullmatch(name) or name.startswith(_RESERVED):
        raise EnvironmentChangeError(
            f"{name!r} is no name for an environment: use up to 40 small letters, digits, '.', "
            f"'_' and '-', not beginning with {_RESERVED!r}."
        )
    if wrong := [word for word in packages if word.startswith("-")]:
        raise EnvironmentChangeError(f"{wrong[0]!r} is no package.")
    place = folder() / name
    if place.exists():
        raise EnvironmentChangeError(
            f"There is an environment {name!r}. Remove it first (labkit env remove {name}), or "
            "choose another name."
        )
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = NamedEnvironment(name, place)
    try:
        _uv("venv", "--quiet", "--python", python, str(place))
        _uv("pip", "install", "--python", str(made.python), *_ALWAYS, *packages)
    except BaseException:
        remove_tree(place)
        raise
    return made


def remove(name: str) -> None:
    """Remove an environment with all that is in it.

    Raises
    ------
    EnvironmentChangeError
        There is none of that name, or it cannot be removed wholly.
    """
    if not remove_tree(find(name).folder):
        raise EnvironmentChangeError(
            f"The environment {name!r} cannot be removed wholly. Stop what runs in it, and try"
            " again."
        )


def _uv(*words: str) -> None:
    done = subprocess.run([str(program("uv", "uv")), *words], check=False)
    if done.returncode:
        raise EnvironmentChangeError(
            f"uv could not do it (exit status {done.returncode}); its own words are above."
        )
