"""Job files: the same job for the command line, the notebook and a queue, in YAML or JSON.

::

    workflow: command
    command: fastqc {reads} -o {out}
    over: samples.csv
    inputs: [reads]
    outputs: ["*.html"]
    cpu: 2
    memory: 4 GB
    backend: slurm
    options:
      slurm_partition: main
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from labkit.base.problems import LabkitError, Problem, RefusedError, unknown_name
from labkit.jobs import plugins
from labkit.jobs.job import Job
from labkit.jobs.plan import Plan

_OWN = ("workflow", "backend", "options")


@runtime_checkable
class Workflow(Protocol):
    """What a job file's workflow can do; see :class:`labkit.workflows.base.Workflow`."""

    def plan(self, backend: str | None = None, **options: Any) -> Plan:
        """Return what a submit would do."""

    def submit(self, backend: str | None = None, **options: Any) -> Job:
        """Submit it."""


@dataclass(frozen=True)
class JobFile:
    """A job as a file describes it.

    Attributes
    ----------
    workflow : Workflow
        What is to be done. Relative paths count from the current folder.
    backend : str or None
        Where.
    options : mapping
        Options of the submit.
    """

    workflow: Workflow
    backend: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, backend: str | None = None, **options: Any) -> Plan:
        """Return what a submit would do; what is given here goes before the file."""
        return self.workflow.plan(backend or self.backend, **{**self.options, **options})

    def submit(self, backend: str | None = None, **options: Any) -> Job:
        """Submit it; what is given here goes before the file."""
        return self.workflow.submit(backend or self.backend, **{**self.options, **options})


def load(path: str | Path) -> JobFile:
    """Read a job file.

    Raises
    ------
    RefusedError
        With all problems of the file.
    LabkitError
        It is not there, or no YAML or JSON.
    """
    return parse(read(path))


def parse(data: Any) -> JobFile:
    """Make a job of what a job file holds.

    Raises
    ------
    RefusedError
        With all problems.
    """
    if not isinstance(data, Mapping):
        raise RefusedError([Problem("job file", "must hold names and values.")])
    name = data.get("workflow", "command")
    if name not in plugins.names(plugins.WORKFLOWS):
        raise RefusedError([unknown_name("workflow", str(name), plugins.names(plugins.WORKFLOWS))])
    cls = plugins.find(plugins.WORKFLOWS, name).load(Workflow)
    parameters = inspect.signature(cls).parameters
    given = {key: value for key, value in data.items() if key not in _OWN}
    problems = [
        unknown_name(f"field of {name}", str(key), [*parameters, *_OWN])
        for key in given
        if key not in parameters
    ]
    problems += [
        Problem(key, f"is missing: {name} needs it.")
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and key not in given
    ]
    options = data.get("options") or {}
    if not isinstance(options, Mapping):
        problems.append(Problem("options", "must hold names and values."))
    backend = data.get("backend")
    if backend is not None and not isinstance(backend, str):
        problems.append(Problem("backend", "must be a name."))
    if problems:
        raise RefusedError(problems)
    return JobFile(cls(**given), backend, dict(options))


def read(file: str | Path) -> Any:
    """Return what a job file holds, before anything is made of it.

    Raises
    ------
    LabkitError
        It is not there, or no YAML or JSON.
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LabkitError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        if path.suffix == ".json":
            return json.loads(text)
        try:
            yaml: Any = import_module("yaml")
        except ImportError as error:
            raise LabkitError(f"PyYAML is needed for {path}; or write it as JSON.") from error
        return yaml.safe_load(text)
    except LabkitError:
        raise
    except Exception as error:  # each parser has its own
        raise LabkitError(f"{path} is no valid job file: {error}") from error
