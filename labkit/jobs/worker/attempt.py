"""One attempt of one task, as a driver sees it.

A driver is a Python module (standard library only) with ``run(task)``; its package is copied::

    def run(task):
        def line(text):
            if text.startswith("Image #"):
                task.progress(int(text[7:].split()[0]))
        code = task.call(["cellprofiler", "-c", ...], on_line=line)
        if code:
            task.fail("EXIT", f"CellProfiler ended with code {code}")
"""

from __future__ import annotations

import os
import string
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn


class AttemptFailed(Exception):
    """The attempt ends as FAILED with this reason."""

    def __init__(self, reason: str, text: str, exit_code: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.exit_code = exit_code


def trace() -> str:
    """Return the traceback of what is being handled."""
    import traceback  # only a failure needs it

    return traceback.format_exc()


class Attempt:
    """One attempt of one task.

    Attributes
    ----------
    task : dict
        The line of the task table.
    key, index, stage, number : str, int, str, int
        Which task, which attempt (from 1).
    argv : list of str
        The task's command, filled in.
    params : dict
        The task's ``params``, as planned.
    out : Path
        Write results here; it becomes ``results/<stage>/<key>``.
    tmp : Path
        Temporary folder, removed at the end.
    run_folder, files, results : Path
        The run folder, the plan's files, results of earlier stages.
    earlier : Path or None
        What an earlier attempt of this task has committed (a partial result), else None.
    failed_before : list of dict
        The units that failed in the earlier committed attempt, as given to :meth:`unit_failed`.
    env : dict
        Environment of programs: the stage's environment first in PATH.
    cpu, memory : int
        Cores (rounded up) and bytes that were asked for.
    log : binary file
        The attempt's log; programs write there too.
    """

    def __init__(
        self,
        *,
        run_folder: Path,
        stage: str,
        task: dict[str, Any],
        number: int,
        values: Mapping[str, str],
        env: Mapping[str, str],
        log: IO[bytes],
        start: Callable[..., subprocess.Popen[bytes]],
        earlier: Path | None,
        failed_before: Sequence[dict[str, Any]],
    ) -> None:
        self.task = task
        self.key: str = task["key"]
        self.index: int = task["index"]
        self.stage = stage
        self.number = number
        self.values = dict(values)
        self.argv = [self.expand(part) for part in task["argv"]]
        self.params: dict[str, Any] = task.get("params", {})
        self.out = Path(values["out"])
        self.tmp = Path(values["tmp"])
        self.run_folder = run_folder
        self.files = Path(values["files"])
        self.results = Path(values["results"])
        self.earlier = earlier
        self.failed_before = list(failed_before)
        self.cpu = int(values["cpu"])
        self.memory = int(values["memory"])
        self.env = {**env, **{k: self.expand(v) for k, v in task.get("env", {}).items()}}
        self.log = log
        self.units_total: int = task.get("units", 1)
        self.units_done = 0
        self.units_failed: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self._start = start

    def expand(self, text: str) -> str:
        """Fill in ``${out}`` and the other placeholders of a task's text."""
        return string.Template(text).substitute(self.values)

    def progress(self, done: int, total: int | None = None) -> None:
        """Tell how many units are done; the heartbeat carries it."""
        self.units_done = done
        if total is not None:
            self.units_total = total

    def say(self, text: str) -> None:
        """Write a line to the log."""
        self.log.write(text.encode("utf-8", "replace") + b"\n")
        self.log.flush()

    def fact(self, name: str, value: Any) -> None:
        """Add a measurement (plain JSON) to the record: ``facts[name]``."""
        self.facts[name] = value

    def fail(self, reason: str, text: str) -> NoReturn:
        """End the attempt as FAILED; nothing of it is committed."""
        raise AttemptFailed(reason, text)

    def unit_failed(self, key: str, reason: str, text: str, **about: Any) -> None:
        """Tell that one unit (an image set) failed while the others are well.

        The attempt goes on; at its end ``out`` is committed as a partial result, the task is
        FAILED, and ``job.failed()`` has one row per failed unit. A retry finds the partial result
        as ``earlier`` and these units as ``failed_before``.

        Parameters
        ----------
        about : plain JSON
            Columns for ``job.failed()``: plate, well, site.
        """
        self.units_failed.append({"key": key, "reason": reason, "text": text, **about})

    def call(
        self,
        argv: Sequence[str],
        *,
        on_line: Callable[[str], None] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Run a program to its end, its output into the log.

        Memory and time of the whole process tree are watched meanwhile; the attempt ends with
        OUT_OF_MEMORY or TIMEOUT by itself.

        Parameters
        ----------
        on_line : callable
            Gets each line of output (both streams) as it comes.
        env : mapping
            Beside ``self.env``.
        cwd : Path
            Instead of ``out``.

        Returns
        -------
        int
            Exit code; negative: the number of the signal that ended it.
        """
        process = self._start(
            list(argv),
            env={**self.env, **(env or {})},
            cwd=str(cwd or self.out),
            stdout=subprocess.PIPE if on_line else self.log,
        )
        if on_line is not None and process.stdout is not None:
            with process.stdout:
                for line in iter(process.stdout.readline, b""):
                    self.log.write(line)
                    self.log.flush()
                    on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
        return process.wait()

    def program(self, name: str) -> str:
        """Return the full path of a program of the stage's environment, or of the PATH."""
        for folder in self.env.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder, name)  # noqa: PTH118
            if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112
                return path
        raise AttemptFailed("EXIT", f"the program {name!r} is not installed where the task runs")
