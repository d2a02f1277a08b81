"""Run one task of a CellProfiler job: some image sets, in as few processes as possible.

The worker has this package copied whole into the run folder, and calls :func:`run`. Standard
library only. A task's results are:

``parts.json``
    One entry per CellProfiler process: its folder, the ImageNumbers it was given in its own order,
    and those whose results are good.
``part-N/``
    What that process wrote: tables and images.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

from . import alike, integrity, listen, slices

_CRASHES = 8  # processes that may die in one task before the rest is given up


def run(task: Any) -> None:
    """Run the task's image sets; each that fails is told by its plate, well and site."""
    missing = [path for path in map(task.expand, task.params["needs"]) if not Path(path).is_file()]
    if missing:
        task.fail("DEPENDENCY", f"illumination functions are missing: {', '.join(missing)}")
    work = Work(task)
    todo = work.take_over()
    todo = work.leave_out_broken(todo)
    crashes = 0
    while todo:
        crashed = work.process(todo)
        if crashed is None:
            break
        crashes += 1
        if crashes > _CRASHES:
            for number in todo:
                if number != crashed[0]:
                    work.failed[number] = ("EXIT", f"not run: {crashes} others died before")
            break
        todo = [number for number in todo if number != crashed[0]]
    work.finish()


class Work:
    """The state of one task.

    Parameters
    ----------
    task : labkit.jobs.worker.attempt.Attempt
        With the params that ``plans.py`` wrote.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        shared = json.loads((task.files / task.params["settings"]).read_text())
        self.params: dict[str, Any] = {**shared, **task.params}
        self.numbers: list[int] = slices.numbers(self.params["rows"])
        self.rows = slices.read_rows(task.files / self.params["table"], self.numbers)
        for row in self.rows.values():
            for column in self.params["expand"]:
                row[column] = task.expand(row[column])
            slices.use_copies(row, task.tmp)
        self.modules = {int(number): name for number, name in self.params["modules"].items()}
        self.parts: list[dict[str, Any]] = []
        self.failed: dict[int, tuple[str, str]] = {}
        self.settled = 0
        self.working = 0.0
        self.by_module: dict[str, float] = {}
        self.ran = 0
        self.started = time.time()

    def take_over(self) -> list[int]:
        """Keep what an earlier attempt has finished; return the image sets to run."""
        earlier = self.task.earlier
        if earlier is None or self.params["whole"] or not (earlier / "parts.json").is_file():
            return self.numbers
        self.parts = json.loads((earlier / "parts.json").read_text())
        for part in self.parts:
            shutil.copytree(
                earlier / part["folder"], self.task.out / part["folder"], copy_function=_link
            )
        good = {number for part in self.parts for number in part["good"]}
        todo = [number for number in self.numbers if number not in good]
        if self.params["grouped"]:
            groups = {self.rows[number]["Group_Number"] for number in todo}
            todo = [n for n in self.numbers if self.rows[n]["Group_Number"] in groups]
            for part in self.parts:
                part["good"] = [number for number in part["good"] if number not in set(todo)]
        self.settled = len(self.numbers) - len(todo)
        self.task.say(f"labkit: {self.settled} image sets are there from an earlier attempt")
        return todo

    def leave_out_broken(self, todo: list[int]) -> list[int]:
        """Leave out the image sets whose images are cut off or missing."""
        whole = []
        for number in todo:
            for channel, path in slices.images(self.rows[number]).items():
                wrong = integrity.problem(path)
                if wrong:
                    self.failed[number] = ("INPUT", f"{channel}, {path.name}: {wrong}")
                    self.task.say(f"labkit: image set {number} left out: {path}: {wrong}")
                    break
            else:
                whole.append(number)
        return whole

    def process(self, todo: list[int]) -> tuple[int, str] | None:
        """Run one CellProfiler process over image sets.

        Returns
        -------
        tuple of (int, str) or None
            The ImageNumber that it died of, and how; None when it came to its end.
        """
        folder = f"part-{len(self.parts) + 1}"
        out = self.task.out / folder
        out.mkdir()
        rows = [self.rows[number] for number in todo]
        settled = self.settled + len(self.failed)
        listener = listen.Listener(
            self.modules, len(todo), lambda done: self.task.progress(settled + done)
        )
        done_file = self.task.tmp / f"{folder}.done"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = self.task.call(
            self.command(folder, rows, out, done_file),
            on_line=listener,
            env={**alike.ENVIRONMENT, "MPLCONFIGDIR": str(self.task.tmp), "TERM": "dumb"},
            cwd=self.task.tmp,
        )
        self.measure(before, listener, len(todo))
        status = done_file.read_text().strip() if done_file.is_file() else ""
        if listener.distrust:
            self.task.fail("CHECK", listener.distrust)
        if code < 0 or not status:
            shutil.rmtree(out)
            how = f"CellProfiler was ended by signal {-code}" if code < 0 else f"exit code {code}"
            return self.crashed(todo, listener, how)
        if code or status != "Complete":
            self.task.fail("EXIT", f"CellProfiler ended with code {code} and says {status!r}")
        self.accept(folder, out, todo, listener)
        return None

    def command(self, folder: str, rows: list[dict[str, str]], out: Path, done: Path) -> list[str]:
        """Return the command line of one process, its image sets written to a file."""
        argv = ["cellprofiler", "--run-headless", "--run", "--always-continue"]
        argv += ["--pipeline", str(self.task.files / self.params["pipeline"])]
        argv += ["--output-directory", str(out), "--done-file", str(done)]
        argv += ["--temporary-directory", str(self.task.tmp)]
        if self.params["plugins"]:
            argv += ["--plugins-directory", self.params["plugins"]]
        if self.params["input_folder"]:
            argv += ["--image-directory", self.params["input_folder"]]
        if self.params["loads_data"]:
            data = self.task.tmp / f"{folder}.csv"
            slices.write_data_file(data, rows)
            # an empty list, else CellProfiler walks through the whole input folder
            none = self.task.tmp / f"{folder}.txt"
            none.write_text("")
            return [*argv, "--data-file", str(data), "--file-list", str(none)]
        data = self.task.tmp / f"{folder}.txt"
        slices.write_file_list(data, rows)
        return [*argv, "--file-list", str(data)]

    def crashed(self, todo: list[int], listener: Any, how: str) -> tuple[int, str]:
        """Find the image set that a process died of."""
        culprit = listener.culprit
        if culprit is None:
            where = "before its first image set" if not listener.done else "while it exported"
            self.task.fail("EXIT", f"{how} {where}")
        number = todo[culprit - 1]
        image, last = listener.current or (None, "")
        module = f" after {last}" if image == culprit else " at its beginning"
        self.failed[number] = ("EXIT", f"{how}{module}")
        self.task.say(f"labkit: image set {number} ended the process ({how}); the others go on")
        return number, how

    def accept(self, folder: str, out: Path, todo: list[int], listener: Any) -> None:
        """Check what a process wrote and note which image sets are good."""
        rows = [self.rows[number] for number in todo]
        for name in self.params["tables"]:
            if not any(out.rglob(name)):
                self.task.fail("CHECK", f"CellProfiler says Complete, but {name} was not written")
        expected = set(range(1, len(todo) + 1))
        for name in self.params["image_tables"]:
            seen: set[int] = set()
            for table in out.rglob(name):
                numbers, wrong = slices.compare(table, rows, self.params["delimiter"])
                if wrong:
                    self.task.fail("CHECK", f"CellProfiler says Complete, but {wrong}")
                seen |= numbers
            expected &= seen
        good = []
        for local, number in enumerate(todo, 1):
            if local in listener.failed:
                self.failed[number] = ("EXIT", listener.failed[local])
            elif local not in listener.done and not self.params["may_skip"]:
                self.failed[number] = ("CHECK", "CellProfiler did not take it to its last module")
            elif local not in expected:
                self.failed[number] = ("CHECK", "it has no row in the Image table")
            else:
                good.append(number)
        self.parts.append({"folder": folder, "numbers": todo, "good": good})

    def measure(self, before: Any, listener: Any, count: int) -> None:
        """Add up what the processes took: next time chunks are sized by it."""
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.working += listener.working
        for name, seconds in listener.by_module.items():
            self.by_module[name] = round(self.by_module.get(name, 0.0) + seconds, 3)
        self.ran += count
        self.task.fact("image_sets", self.ran)
        self.task.fact("startup", round(max(0.0, cpu - listener.working), 3))
        self.task.fact("working", round(self.working, 3))
        self.task.fact("modules", self.by_module)

    def finish(self) -> None:
        """Write which part holds what, and tell which image sets failed."""
        (self.task.out / "parts.json").write_text(json.dumps(self.parts))
        if self.params["whole"]:
            # one function over all images: those that could not be read are told by the analysis
            wrong = [text for reason, text in self.failed.values() if reason != "INPUT"]
            if wrong:
                self.task.fail("EXIT", wrong[0])
            return
        for number in self.numbers:
            if number not in self.failed:
                continue
            reason, text = self.failed[number]
            row = self.rows[number]
            place = {name: row.get(name, "") for name in ("plate", "well", "site")}
            self.task.unit_failed(str(number), reason, text, image_number=number, **place)


def _link(source: str, target: str) -> None:
    """Link a file instead of copying it, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
