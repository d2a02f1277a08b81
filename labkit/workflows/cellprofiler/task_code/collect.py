"""The gather stage's driver: run the gather with the notebook environment's Python.

The worker calls :func:`run`. Standard library only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PROGRESS, _ERROR = "GATHERED ", "ERROR "


def run(task: Any) -> None:
    """Gather what the analysis tasks wrote; fail with the gather's own words."""
    said: list[str] = []

    def listen(line: str) -> None:
        if line.startswith(_PROGRESS):
            done, _, total = line[len(_PROGRESS) :].partition("/")
            task.progress(int(done), int(total))
        elif line.startswith(_ERROR):
            said.append(line[len(_ERROR) :])

    package = str(Path(__file__).parent)
    argv = [task.argv[0], "-I", package, str(task.run_folder), str(task.out), str(task.memory)]
    code = task.call(argv, on_line=listen)
    if code:
        task.fail("CHECK" if said else "EXIT", said[-1] if said else f"it ended with code {code}")
