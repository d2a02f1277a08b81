"""What the program of an attempt is given: placeholders and environment variables."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from labkit.jobs.worker.attempt import AttemptFailed
from labkit.jobs.worker.folder import Folder, make_private, mark

_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM", "BLIS", "ITK_GLOBAL_DEFAULT")
_PRIVATE = ("JUPYTERHUB_", "JPY_", "PYTHON", "LABKIT_")


def make_temporary(path: Path) -> None:
    """Make an attempt's temporary folder.

    Raises
    ------
    AttemptFailed
        It cannot be made.
    """
    try:
        make_private(path)
    except OSError as error:
        raise AttemptFailed(
            "STORAGE",
            f"the folder of temporary files {path.parent} cannot be written: "
            f"{error.strerror or error}. Make room there, or set TMPDIR to another place before "
            "you submit.",
        ) from error


class Setting:
    """Where and with what an attempt's program runs.

    Attributes
    ----------
    folder : Folder
        The run folder.
    manifest, stage, task : dict
        What was asked for: the whole, the stage, the task's line of the table.
    number : int
        Number of the attempt.
    cpu, memory : float, int
        Cores and bytes it may use.
    out, tmp : Path
        The attempt's folder, and its temporary one.
    """

    # No dataclass: its import takes a third of all that a worker takes.
    def __init__(
        self,
        folder: Folder,
        manifest: dict[str, Any],
        stage: dict[str, Any],
        task: dict[str, Any],
        number: int,
        cpu: float,
        memory: int,
        out: Path,
        tmp: Path,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.stage = stage
        self.task = task
        self.number = number
        self.cpu = cpu
        self.memory = memory
        self.out = out
        self.tmp = tmp

    @property
    def _cores(self) -> str:
        return str(max(1, math.ceil(self.cpu)))

    @property
    def _envs(self) -> str:
        envs: str = os.environ.get("LABHUB_ENVS") or self.manifest.get("envs", "")
        return envs

    def values(self) -> dict[str, str]:
        """Return the placeholders."""
        return {
            "out": str(self.out),
            "run": str(self.folder.path),
            "files": str(self.folder.files),
            "results": str(self.folder.results),
            "tmp": str(self.tmp),
            "envs": self._envs,
            "cpu": self._cores,
            "memory": str(self.memory),
            "memory_mb": str(self.memory // 1024**2),
            "attempt": str(self.number),
            "key": self.task["key"],
            "index": str(self.task["index"]),
        }

    def env(self) -> dict[str, str]:
        """Return the environment variables of programs.

        Raises
        ------
        AttemptFailed
            The stage's environment is not here.
        """
        env = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE)}
        env["PATH"] = env.get("PATH") or self.manifest["path"]
        env["TMPDIR"] = str(self.tmp)
        where = (self.stage["name"], self.task["index"], self.number)
        env["LABKIT_ATTEMPT"] = mark(self.folder.path, *where)
        env["LABKIT_PROGRESS"] = str(self.tmp / "progress")
        env.update({f"{name}_NUM_THREADS": self._cores for name in _THREADS})
        environment = (self.stage.get("environment") or {}).get("name")
        if environment and os.environ.get("LABKIT_ENVIRONMENT") != "path":
            env["PATH"] = f"{self._environment(environment)}{os.pathsep}{env['PATH']}"
        return env

    def _environment(self, name: str) -> Path:
        recorded = self.manifest.get("envs", "")
        places = [Path(root) / name / "bin" for root in (self._envs, recorded) if root]
        for place in places:
            if place.is_dir():
                return place
        tried = ", ".join(map(str, places)) or "LABHUB_ENVS, which is not set"
        raise AttemptFailed(
            "INPUT", f"the environment {name!r} is not on {os.uname().nodename}: tried {tried}"
        )
