"""A stage's driver: a package that is copied whole into the run folder.

Its modules import each other in the same way in a checkout and on a node: ``from . import other``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def module_name(driver: Path) -> str:
    """Return what the worker imports: ``"<package>.<module>"``."""
    return f"{driver.parent.name}.{driver.stem}"


def files(driver: Path) -> Iterator[tuple[str, bytes]]:
    """Return name and content of all files of a driver's package, in a fixed order."""
    package = driver.parent
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield path.relative_to(package).as_posix(), path.read_bytes()


def copy(driver: Path, folder: Path) -> None:
    """Copy a driver's package into a folder, under the package's name."""
    shutil.copytree(driver.parent, folder / driver.parent.name, ignore=_LEFT_OUT)
