"""A plan: the stages and tasks of a job before it is submitted."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem
from labkit.base.remote import is_remote
from labkit.base.units import format_size
from labkit.environments.personal import packages_on
from labkit.jobs.model import Container, Environment, Stage


@dataclass(frozen=True)
class Plan:
    """What a workflow would run.

    Attributes
    ----------
    name : str
        Short name for people; with the key it names the run folder.
    tool : str
        What makes the tasks, e.g. ``"command"`` or ``"cellprofiler 4.2.8"``: part of the key.
    stages : tuple of Stage
        Each after those it depends on.
    parameters : mapping
        Plain JSON that explains the job: part of the key.
    files : mapping of str to str, bytes or Path
        Copied into the run folder as ``files/<name>``: part of the key. A Path is copied.
    fingerprinted : tuple of str
        Further paths whose size and time of change are part of the key; they are not filled in,
        and need not exist when a task starts.
    problems : tuple of Problem
        Warnings, shown before and after the submit.
    backend : str
        Name of the backend it was planned for.
    payload : str
        Exactly what the backend would be handed.
    notes : tuple of str
        What is worth knowing, e.g. how chunks were sized.
    """

    name: str
    tool: str
    stages: tuple[Stage, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str | bytes | Path] = field(default_factory=dict)
    fingerprinted: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    backend: str = ""
    payload: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are called {stage.name!r}")
            if missing := set(stage.depends_on) - seen:
                raise ValueError(f"stage {stage.name}: {sorted(missing)} must come before it")
            seen.add(stage.name)

    @property
    def tasks(self) -> int:
        """Number of tasks in all stages."""
        return sum(len(stage.tasks) for stage in self.stages)

    @property
    def remote_inputs(self) -> list[str]:
        """The inputs that lie in S3, each once."""
        return list(dict.fromkeys(text for stage in self.stages for text in remote_inputs(stage)))

    def stage(self, name: str) -> Stage:
        """Return a stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def rows(self) -> list[dict[str, str]]:
        """Return one row of text per stage, as the plan is shown."""
        return [
            {
                "stage": stage.name,
                "tasks": f"{len(stage.tasks):,}",
                "units": f"{sum(task.units for task in stage.tasks):,}",
                "cpu": f"{stage.resources.cpu:g}",
                "memory": format_size(stage.resources.memory),
                "time": str(stage.resources.time or "no limit"),
                "environment": show_environment(stage.environment),
                "after": ", ".join(stage.depends_on),
            }
            for stage in self.stages
        ]

    def _all_notes(self) -> list[str]:
        """Return the workflow's notes, and what of the person's own packages the jobs find."""
        by_path = any(stage.environment is None for stage in self.stages)
        own = packages_on(os.environ.get("PATH", os.defpath)) if by_path else []
        return [*self.notes, *([f"With your own packages: {', '.join(own)}"] if own else [])]

    def __repr__(self) -> str:
        rows = self.rows()
        heads = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        lines = [f"Plan of {self.name} on {self.backend or 'no backend yet'}: {self.tasks:,} tasks"]
        lines.append("  " + "  ".join(name.ljust(width) for name, width in heads.items()))
        lines += [
            "  " + "  ".join(row[name].ljust(width) for name, width in heads.items())
            for row in rows
        ]
        lines += [f"  Note: {note}" for note in self._all_notes()]
        lines += [f"  Warning: {problem}" for problem in self.problems]
        if self.payload:
            lines += ["", self.payload]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        """Return the plan as HTML; every value is escaped."""
        rows = self.rows()
        head = "".join(f"<th scope='col'>{name}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row.values()) + "</tr>"
            for row in rows
        )
        notes = "".join(
            f"<p>{html.escape(text)}</p>"
            for text in (*self._all_notes(), *(f"Warning: {problem}" for problem in self.problems))
        )
        payload = (
            f"<details><summary>What {html.escape(self.backend)} is handed</summary>"
            f"<pre>{html.escape(self.payload)}</pre></details>"
            if self.payload
            else ""
        )
        return (
            f"<strong>Plan of {html.escape(self.name)}</strong>: {self.tasks:,} tasks on "
            f"{html.escape(self.backend)}<table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{notes}{payload}"
        )


def remote_inputs(stage: Stage) -> Counter[str]:
    """Return the inputs of a stage that lie in S3, and how many of its tasks need each."""
    return Counter(
        text.replace("$$", "$")
        for task in stage.tasks
        for text in dict.fromkeys(task.inputs)
        if is_remote(text)
    )


def show_environment(environment: Environment | Container | None) -> str:
    """Return the name of an environment."""
    if environment is None:
        return "PATH"
    return environment.name if isinstance(environment, Environment) else environment.image
