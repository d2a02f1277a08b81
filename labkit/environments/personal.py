"""The personal environment: what a person installs, layered over the lab's Python.

It is an ordinary virtual environment in the person's home, whose packages come before those of
the lab's environment and hide them. Kernels, ``!`` and terminals run in it; the server's own
process never does, so that nothing in it can keep the server from starting.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.base.interpreter import LAB, lab_environment
from labkit.base.problems import LabkitError
from labkit.base.remove import remove_tree

_PTH = "labhub-below.pth"
_STATE = "labhub.json"
# Programs that must run in the layer, not in the lab's environment, and their modules.
_MODULES = {"pip": "pip", "pip3": "pip", "ipython": "IPython"}
# Programs of the lab's other environments that people call by name.
_PROGRAMS = {"cellxgene": "cellxgene", "cellprofiler": "cellprofiler"}


class EnvironmentChangeError(LabkitError):
    """An environment of one's own cannot be made, changed or removed."""


@dataclass(frozen=True)
class Shadow:
    """A package of the person's that hides the lab's of the same name.

    Attributes
    ----------
    name : str
        Name of the package.
    own, lab : str
        The two versions.
    """

    name: str
    own: str
    lab: str

    def __str__(self) -> str:
        return f"{self.name} {self.own} (the lab has {self.lab})"


def folder() -> Path:
    """Return where a person's environments lie (``$XDG_DATA_HOME/labkit/python``)."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "labkit" / "python"


class Personal:
    """A person's layer over one of the lab's environments.

    Parameters
    ----------
    lab : Path, optional
        Folder of the lab's environment; where none is named, the one below this process's layer,
        or the one that runs this code.
    place : Path, optional
        Where personal environments lie; `folder()` where none is named.
    """

    def __init__(self, lab: Path | None = None, place: Path | None = None) -> None:
        self.lab = lab or lab_environment()
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        # One for all of the lab's environments of a Python: a person's packages are where they are.
        self.folder = (place or folder()) / f"personal-{version}"
        self._lib = Path("lib") / f"python{version}" / "site-packages"

    @property
    def python(self) -> Path:
        """The layer's Python."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        return self.folder / self._lib

    @property
    def lab_packages(self) -> Path:
        """Where the lab's packages lie."""
        return self.lab / self._lib

    @property
    def path(self) -> str:
        """What comes first in PATH: the layer's programs, then the lab's."""
        return os.pathsep.join((str(self.folder / "bin"), str(self.lab / "bin")))

    # -- making -----------------------------------------------------------------------

    def ensure(self) -> bool:
        """Make it where it is not there, and let it follow the lab's environment.

        Returns
        -------
        bool
            The lab's environment has changed since the last time.

        Raises
        ------
        OSError
            The home cannot be written, or is full.
        """
        before = self._state()
        locks = dict(before.get("locks") or {})
        old, new = locks.get(str(self.lab)), self._lock()
        wanted = {"python": _base_python(), "locks": locks | {str(self.lab): new}}
        if before != wanted or not self.python.exists():
            if before.get("python") != wanted["python"] or not self.python.exists():
                self._make()
            files.write_atomic(self.packages / _PTH, self._below())
            self._link_programs()
            files.write_atomic(self.folder / _STATE, json.dumps(wanted))
        return old is not None and old != new

    def _below(self) -> str:
        """Return the line by which Python finds the lab's packages after those in here."""
        lib = str(Path("/") / self._lib)
        top = f"os.environ.get({LAB!r}, {str(self.lab)!r})"
        return f"import os, site; site.addsitedir({top} + {lib!r})\n"

    def _make(self) -> None:
        import venv

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for link in (self.folder / "bin").glob("python*"):
            link.unlink()  # of a Python that may be gone
        venv.EnvBuilder(symlinks=True).create(self.folder)
        settings = self.folder / "etc" / "ipython"
        if not settings.is_symlink():
            settings.parent.mkdir(exist_ok=True)
            settings.symlink_to(self.lab / "etc" / "ipython")

    def _link_programs(self) -> None:
        programs = self.folder / "bin"
        for name, module in _MODULES.items():
            text = f'#!/bin/sh\nexec {shlex.quote(str(self.python))} -m {module} "$@"\n'
            files.write_atomic(programs / name, text, mode=0o755)
        environments = Path(os.environ.get("LABHUB_ENVS") or self.lab.parent)
        for environment, name in _PROGRAMS.items():
            program, link = environments / environment / "bin" / name, programs / name
            if link.is_symlink():
                link.unlink()
            if program.is_file() and not link.exists():
                link.symlink_to(program)

    def _state(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / _STATE).read_text()))
        except (OSError, ValueError):
            return {}

    def _lock(self) -> str:
        try:
            return str(json.loads((self.lab / _STATE).read_text())["lock"])
        except (OSError, ValueError, KeyError):
            return ""

    def reset(self) -> list[str]:
        """Take all its packages away; kernels that run keep what they have imported.

        Returns
        -------
        list of str
            What it held, as ``name==version``.

        Raises
        ------
        EnvironmentChangeError
            It cannot be removed.
        """
        held = self.freeze()
        if self.folder.exists() and not remove_tree(self.folder):
            raise EnvironmentChangeError(
                f"{self.folder} cannot be removed wholly. Stop what runs in it, and try again."
            )
        self.ensure()
        return held

    # -- looking ----------------------------------------------------------------------

    def own(self) -> dict[str, str]:
        """Return the versions of the packages in it, by their names."""
        return installed(self.packages)

    def freeze(self) -> list[str]:
        """Return its packages as ``name==version``, sorted."""
        return [f"{name}=={version}" for name, version in sorted(self.own().items())]

    def shadows(self) -> list[Shadow]:
        """Return its packages that hide the lab's."""
        own = self.own()
        lab = installed(self.lab_packages) if own else {}
        return [Shadow(name, own[name], lab[name]) for name in sorted(own.keys() & lab.keys())]


def packages_on(path: str) -> list[str]:
    """Return what a PATH shows of a person's own packages, as ``name==version``.

    Parameters
    ----------
    path : str
        The PATH; one without the personal environment shows none.
    """
    personal = Personal()
    shown = str(personal.folder / "bin") in path.split(os.pathsep)
    return personal.freeze() if shown else []


def installed(packages: Path) -> dict[str, str]:
    """Return the versions of what is installed in a folder, by normalized names."""
    versions = {}
    for distribution in distributions(path=[str(packages)]):
        name = distribution.metadata["Name"]  # None where an installation was cut short
        if name:
            versions[re.sub(r"[-_.]+", "-", name).lower()] = distribution.version
    return versions


def _base_python() -> str:
    """Return the Python that the lab's environment was made from."""
    return str(getattr(sys, "_base_executable", sys.executable))
