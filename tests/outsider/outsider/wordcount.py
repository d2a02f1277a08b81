"""Count the words of text files, one task per file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from labkit.base.problems import Problem
from labkit.jobs.job import Job
from labkit.jobs.model import Resources, Stage, Task, literal, safe_key
from labkit.jobs.plan import Plan
from labkit.workflows.base import Workflow


class WordCountJob(Job):
    """A job that knows where its numbers are."""

    def counts(self) -> dict[str, int]:
        """Return the words of each file that was counted."""
        table = self.results("words.json")
        return {
            key: json.loads(Path(path).read_text())["words"]
            for key, path in zip(table["key"], table["path"], strict=True)
        }


class WordCount(Workflow):
    """Count the words of text files.

    Parameters
    ----------
    files : sequence of str or Path
        The files.
    longer_than : int
        Only words with more characters count.
    """

    job_class = WordCountJob

    def __init__(self, files: Sequence[str | os.PathLike[str]], *, longer_than: int = 0) -> None:
        self.files = [Path(file).expanduser().absolute() for file in files]
        self.longer_than = longer_than

    def check(self) -> list[Problem]:
        """Return everything that is wrong, before anything is started."""
        return [
            Problem(str(file), "is no file.", "Is it spelled right?")
            for file in self.files
            if not file.is_file()
        ]

    def build(self, backend: str) -> Plan:
        """Return the plan: one stage, one task per file."""
        tasks = tuple(
            Task(
                key=safe_key(file.name),
                index=index,
                inputs=(literal(str(file)),),
                outputs=("words.json",),
                params={"file": str(file), "longer_than": self.longer_than},
            )
            for index, file in enumerate(self.files)
        )
        driver = Path(__file__).parent / "task_code" / "driver.py"
        stage = Stage("count", tasks, Resources.of(0.5, "100 MB"), driver=driver)
        return Plan("wordcount", "wordcount 1.0", (stage,))
