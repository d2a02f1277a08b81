"""What a program of ours is asked by the driver, and how it answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .pipe import Failed


class Request:
    """One task.

    Attributes
    ----------
    params, settings : dict
        The task's own, and what all tasks share (``files/alignment.json``).
    files, results, out, tmp : Path
        As in the run folder; ``tmp`` is on local scratch.
    cpu, memory : int
        Cores and bytes.
    """

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text())
        self.params: dict[str, Any] = content["params"]
        self.files = Path(content["files"])
        self.results = Path(content["results"])
        self.out = Path(content["out"])
        self.tmp = Path(content["tmp"])
        self.cpu: int = content["cpu"]
        self.memory: int = content["memory"]
        self.settings: dict[str, Any] = json.loads((self.files / "alignment.json").read_text())

    def progress(self, done: int, total: int) -> None:
        """Tell how far it is."""
        print(f"PROGRESS {done} {total}", flush=True)

    def say(self, text: str) -> None:
        """Write a line into the log."""
        print(f"labkit: {text}", flush=True)

    def facts(self, **values: Any) -> None:
        """Add measurements to the task's record."""
        print(f"FACT {json.dumps(values)}", flush=True)


def serve(work: Callable[[Request], None], path: Path) -> None:
    """Do the work that a file asks for; tell how it failed."""
    try:
        work(Request(path))
    except Failed as error:
        reason, text = error.reason, error.text
    except FileNotFoundError as error:
        reason, text = "INPUT", str(error)
    else:
        return
    print(f"ERROR {reason} {json.dumps(text)}", flush=True)
    sys.stdout.flush()
    os._exit(1)  # threads of a broken pipe may still hang on a read
