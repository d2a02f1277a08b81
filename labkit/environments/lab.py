"""The lab's further environments that can be kernels, such as CellProfiler's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.base.interpreter import lab_environment


@dataclass(frozen=True)
class LabEnvironment:
    """An environment that the lab keeps, beside that of its notebooks.

    Attributes
    ----------
    name : str
        Its folder's name.
    python : Path
        Its Python.
    """

    name: str
    python: Path


def lab_environments(folder: Path | None = None) -> Iterator[LabEnvironment]:
    """Yield the lab's environments that can be kernels, by name.

    Servers of their own (JupyterLab's, R's) are none: they have kernels themselves.

    Parameters
    ----------
    folder : Path, optional
        Where environments are; ``$LABHUB_ENVS``, else what is beside the notebooks' environment.
    """
    own = lab_environment()
    top = folder or Path(os.environ.get("LABHUB_ENVS") or own.parent)
    for entry in sorted(top.iterdir()) if top.is_dir() else ():
        python = entry / "bin" / "python"
        packages = next(entry.glob("lib/python3*/site-packages"), entry)
        is_kernel = (packages / "ipykernel").is_dir() and not (packages / "jupyter_server").is_dir()
        if is_kernel and not entry.name.startswith(".") and os.access(python, os.X_OK):
            yield LabEnvironment(entry.name, python)
