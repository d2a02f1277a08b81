"""Results that a succeeded task had, and that somebody has deleted since."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from labkit.jobs.runs.store import Run


def deleted(run: Run) -> set[tuple[str, int]]:
    """Return the tasks (stage, index) without a result folder, or without a declared output."""
    return {
        (info.name, task["index"])
        for info in run.manifest.stages
        for task in run.folder.tasks(info.name)
        if not _complete(run.folder.result(info.name, task["key"]), task)
    }


def _complete(folder: Path, task: dict[str, Any]) -> bool:
    if not folder.is_dir():
        return False
    for text in task.get("outputs", ()):
        template = string.Template(text)
        if set(template.get_identifiers()) - {"key", "index"}:
            continue  # only the attempt knew what it meant
        pattern = template.substitute(key=task["key"], index=task["index"])
        if not any(folder.glob(pattern)):
            return False
    return True
