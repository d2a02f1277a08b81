"""Any tool over the rows of a table."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.base.addresses import address_problem
from labkit.base.problems import Problem
from labkit.base.remote import is_remote
from labkit.jobs.model import (
    DEFAULT_MEMORY,
    PLACEHOLDERS,
    Container,
    Environment,
    Resources,
    Stage,
    Task,
    literal,
    safe_key,
)
from labkit.jobs.plan import Plan
from labkit.workflows import command_template, named_paths, remote_inputs, sample_table
from labkit.workflows.base import Workflow


class Command(Workflow):
    """Run a program once per row of a table.

    Parameters
    ----------
    command : str
        ``"fastqc {reads} -o {out}"``: names in braces are columns of the table, or

        ``out``
            the task's own folder, where it runs and writes; kept when it succeeds,
        ``cpu``, ``memory_mb``, ``tmp``, ``key``, ``attempt``, ``index``
            what the task has.

        It is split into arguments before values are filled in: a value with spaces or ``;`` stays
        one argument, and no shell sees it.
    over : DataFrame, path of a CSV or TSV, or list of dict
        One task per row; None: one task.
    inputs : list of str, or mapping of str to path
        Columns that hold files, which must exist before; a mapping names files that all tasks
        use: ``inputs={"reference": "ref.fa"}`` is ``{reference}`` in the command. Relative paths
        count from here, else from the CSV's folder. ``s3://bucket/key`` is fetched before, and
        the command gets the path of the copy.
    outputs : list of str
        What each task must have written, relative to ``{out}``: ``"{sample}.bam"``, ``"*.html"``.
        A task whose outputs are missing or empty has FAILED, whatever its exit code.
    key : str
        Column that names the tasks; None: the first whose values are all different.
    name : str
        Name of the job; None: the program's.
    environment : str or Container
        The lab's environment that has the program; None: your PATH.
    cpu, memory, time
        What each task asks for.
    shell : bool
        Let bash run the command (``-euo pipefail``), for pipes and redirection. Values are quoted.
    retries : int
        Further attempts after a transient failure.
    env : mapping of str to str
        Further environment variables.
    output : path
        Folder that the run folder is made in; None: ``$LABKIT_RUNS`` or ``~/labkit-runs``.

    Examples
    --------
    >>> job = Command(
    ...     "fastqc {reads} -o {out}", over="samples.csv", inputs=["reads"], outputs=["*.html"]
    ... ).submit()  # doctest: +SKIP
    """

    def __init__(
        self,
        command: str,
        over: Any = None,
        *,
        inputs: Iterable[str] | Mapping[str, str | os.PathLike[str]] = (),
        outputs: Iterable[str] = (),
        key: str | None = None,
        name: str | None = None,
        environment: str | Container | None = None,
        cpu: float = 1.0,
        memory: int | str = DEFAULT_MEMORY,
        time: timedelta | int | float | str | None = None,
        shell: bool = False,
        retries: int = 2,
        env: Mapping[str, str] | None = None,
        output: str | os.PathLike[str] | None = None,
    ) -> None:
        self.template = command_template.Template(command, shell)
        self._over = over
        self._columns = [] if isinstance(inputs, Mapping) else _listed(inputs)
        self._fixed = dict(inputs) if isinstance(inputs, Mapping) else {}
        self._outputs = _listed(outputs)
        self._key = key
        self._name = name
        self._environment = environment
        self._asked: dict[str, Any] = {"cpu": cpu, "memory": memory, "time": time}
        self._retries = retries
        self._env = dict(env or {})
        self.output = os.fspath(output) if output is not None else None

    @cached_property
    def _table(self) -> tuple[list[dict[str, Any]], Path | None, list[Problem]]:
        return sample_table.read(self._over)

    @property
    def name(self) -> str:
        """Name of the job."""
        word = self._name or Path((self.template.text.split() or ["job"])[0]).name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", word).strip("-.") or "job"

    def check(self) -> list[Problem]:
        """Return all problems, of the command, the table and its files."""
        table, _, problems = self._table
        problems = list(problems)
        columns = set(table[0]) if table else set()
        if not table and not problems:
            problems.append(Problem("over", "the table has no rows."))
        problems += self.template.problems(columns | set(self._fixed))
        for column in [*self._columns, *([self._key] if self._key else [])]:
            if table and column not in columns:
                problems.append(
                    Problem(column, "is no column.", f"Columns: {', '.join(sorted(columns))}.")
                )
        problems += self._check_outputs(columns)
        try:
            Resources.of(**self._asked)
            if isinstance(self._environment, str):
                Environment(self._environment)
        except (TypeError, ValueError) as error:
            problems.append(Problem("resources", f"{error}."))
        if any(not problem.warning for problem in problems):
            return problems
        return [
            *problems,
            *self._check_rows(table),
            *self._check_fixed(),
            *self._check_remote(table),
            *self._check_keys(),
        ]

    def _check_outputs(self, columns: set[str]) -> list[Problem]:
        problems = []
        for pattern in self._outputs:
            parts = Path(pattern).parts
            if not pattern or Path(pattern).is_absolute() or ".." in parts:
                problems.append(
                    Problem(f"outputs, {pattern!r}", "must lie below {out}; leave {out}/ away.")
                )
                continue
            try:
                names = command_template.Template(pattern).names
            except command_template.TemplateError as error:
                problems.append(Problem(f"outputs, {pattern!r}", f"{error}."))
                continue
            if unknown := names - columns - set(PLACEHOLDERS) - set(self._fixed):
                problems.append(Problem(f"outputs, {pattern!r}", f"no column {sorted(unknown)}."))
        return problems

    def _check_rows(self, table: list[dict[str, Any]]) -> list[Problem]:
        problems = []
        used = sorted(self.template.names & set(table[0]))
        for number, row in enumerate(table, start=1):
            for column in used:
                if row[column] in ("", []):
                    problems.append(Problem(f"row {number}, {column}", "is empty."))
            for column in self._columns:
                for text in row[column] if isinstance(row[column], list) else [row[column]]:
                    problems += self._check_file(f"row {number}, {column}", text)
        return problems

    def _check_file(self, where: str, text: str) -> list[Problem]:
        if is_remote(text):  # all at once, later
            return []
        address = address_problem(where, text)
        if address is not None:
            return [address]
        path = self._path(text)
        return [] if os.access(path, os.R_OK) else [Problem(where, f"there is no file {path}.")]

    def _check_remote(self, table: list[dict[str, Any]]) -> list[Problem]:
        """Ask S3 for all inputs that lie there."""
        places = {os.fspath(path): f"inputs, {name}" for name, path in self._fixed.items()}
        for number, row in enumerate(table, start=1):
            for column in self._columns:
                for text in row[column] if isinstance(row[column], list) else [row[column]]:
                    places.setdefault(text, f"row {number}, {column}")
        return remote_inputs.problems(places)

    def _check_fixed(self) -> list[Problem]:
        problems = [
            problem
            for name, path in self._fixed.items()
            for problem in self._check_file(f"inputs, {name}", os.fspath(path))
        ]
        if self.template.shell:
            return problems
        for word in self.template.argv(dict.fromkeys(self.template.names, ""))[1:]:
            if "/" not in word and "." not in word:
                continue
            if not Path(word).is_absolute() and Path(word).is_file():
                problems.append(
                    Problem(
                        word,
                        "is a file here, but each task runs in a folder of its own.",
                        f"Declare it: inputs={{'file': {word!r}}}, and write {{file}}.",
                    )
                )
        return problems

    def _check_keys(self) -> list[Problem]:
        seen: dict[str, int] = {}
        problems = []
        for number, key in enumerate(self._keys(), start=1):
            if key in seen:
                problems.append(
                    Problem(f"row {number}", f"has the same key {key!r} as row {seen[key]}.")
                )
            seen.setdefault(key, number)
        return problems

    def _keys(self) -> list[str]:
        table = self._table[0]
        if self._key:
            return [safe_key(_text(row[self._key])) for row in table]
        for column in table[0]:
            keys = [safe_key(_text(row[column])) for row in table]
            if len(set(keys)) == len(keys) and "task" not in keys:
                return keys
        width = len(str(len(table)))
        return [f"row{number:0{width}d}" for number in range(1, len(table) + 1)]

    def build(self, backend: str) -> Plan:  # noqa: ARG002 -- the same everywhere
        """Return the plan: one stage, one task per row."""
        fixed = {name: self._path(os.fspath(path)) for name, path in self._fixed.items()}
        env = {**{k: literal(v) for k, v in self._env.items()}, **self.template.env()}
        tasks = []
        for index, (key, row) in enumerate(zip(self._keys(), self._table[0], strict=True)):
            values: dict[str, Any] = {**row, **fixed}
            files = list(fixed.values())
            for column in self._columns:
                paths = self._paths(row[column])
                values[column] = paths if isinstance(row[column], list) else paths[0]
                files += paths
            escaped = {name: glob.escape(_one(value)) for name, value in values.items()}
            tasks.append(
                Task(
                    key=key,
                    index=index,
                    argv=self.template.argv(values),
                    inputs=tuple(map(literal, dict.fromkeys(files))),
                    outputs=tuple(
                        command_template.fill(pattern, escaped) for pattern in self._outputs
                    ),
                    env=env | self._remote_variables(files),
                    params={"row": row} if row else {},
                )
            )
        declared = {path for task in tasks for path in task.inputs}
        words = {word for task in tasks for word in task.argv} | set(env.values())
        for column in self.template.names & set(self._table[0][0]):
            for row in self._table[0]:
                value = row[column]
                words.update(map(literal, value if isinstance(value, list) else [value]))
        named = named_paths.existing(words, shell=self.template.shell)
        environment = self._environment
        stage = Stage(
            name="command",
            tasks=tuple(tasks),
            resources=Resources.of(**self._asked),
            environment=Environment(environment) if isinstance(environment, str) else environment,
            retries=self._retries,
        )
        return Plan(
            name=self.name,
            tool="command",
            stages=(stage,),
            fingerprinted=tuple(path for path in named if literal(path) not in declared),
            parameters={"command": self.template.text, "shell": self.template.shell},
        )

    def _remote_variables(self, files: list[str]) -> dict[str, str]:
        """Return the variables in which a shell finds what is fetched."""
        if not self.template.shell:
            return {}
        remote = (file for file in files if isinstance(file, command_template.RemoteFile))
        return {file.variable: file.template for file in remote}

    def _paths(self, value: Any) -> list[str]:
        return [self._path(item) for item in (value if isinstance(value, list) else [value])]

    def _path(self, text: str) -> str:
        """Return a path in full: it counts from here, else from the table's folder."""
        if is_remote(text):
            return command_template.RemoteFile(text)
        path = os.path.expanduser(text)  # noqa: PTH111 -- thousands of them
        here = os.path.abspath(path)  # noqa: PTH100
        folder = self._table[1]
        if folder is not None and not os.path.exists(here):  # noqa: PTH110
            beside = os.path.abspath(folder / path)  # noqa: PTH100
            if os.path.exists(beside):  # noqa: PTH110
                return beside
        return here


def _listed(value: Iterable[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _one(value: Any) -> str:
    """Return a value as text; of a list the first item."""
    return str(value[0]) if isinstance(value, list) and value else str(value)


def _text(value: Any) -> str:
    text = _one(value)
    return Path(text).name if "/" in text else text
