"""The manifest: what was asked for, and the key that says when two jobs are the same."""

# 10,000 inputs are looked at: a Path for each would double the time.
# ruff: noqa: PTH112, PTH116, PTH118
from __future__ import annotations

import hashlib
import json
import os
import pwd
import socket
import string
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.base.remote import is_remote
from labkit.environments.personal import packages_on
from labkit.jobs.model import Container, Environment, Resources, Stage, Task
from labkit.jobs.plan import Plan, remote_inputs
from labkit.jobs.runs import drivers, remote
from labkit.jobs.worker.folder import FORMAT

_LISTED = 100_000  # files of an input folder that are looked at


@dataclass(frozen=True)
class StageInfo:
    """A stage as the manifest has it: everything but its tasks.

    Attributes
    ----------
    tasks : int
        Number of tasks.
    units : int
        What progress counts, over all tasks.
    driver : str
        Module with ``run(task)`` in ``drivers/<stage>``, e.g. ``task_code.driver``, or empty.
    shared_inputs : tuple of str
        Objects in S3 that several of its tasks need: fetched once per node.
    """

    name: str
    tasks: int
    units: int
    resources: Resources
    environment: Environment | Container | None = None
    depends_on: tuple[str, ...] = ()
    tolerate_failures: bool = False
    retries: int = 2
    driver: str = ""
    shared_inputs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        environment: dict[str, str] | None = None
        if isinstance(self.environment, Environment):
            environment = {"name": self.environment.name}
        elif isinstance(self.environment, Container):
            environment = {"image": self.environment.image}
        return {
            "name": self.name,
            "tasks": self.tasks,
            "units": self.units,
            "resources": self.resources.to_json(),
            "environment": environment,
            "depends_on": list(self.depends_on),
            "tolerate_failures": self.tolerate_failures,
            "retries": self.retries,
            "driver": self.driver,
            **({"shared_inputs": list(self.shared_inputs)} if self.shared_inputs else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StageInfo:
        """Make it of what :meth:`to_json` wrote."""
        environment = data["environment"] or {}
        place: Environment | Container | None = None
        if "name" in environment:
            place = Environment(environment["name"])
        elif "image" in environment:
            place = Container(environment["image"])
        return cls(
            name=data["name"],
            tasks=data["tasks"],
            units=data["units"],
            resources=Resources.from_json(data["resources"]),
            environment=place,
            depends_on=tuple(data["depends_on"]),
            tolerate_failures=data["tolerate_failures"],
            retries=data["retries"],
            driver=data["driver"],
            shared_inputs=tuple(data.get("shared_inputs", ())),
        )


@dataclass(frozen=True)
class Manifest:
    """What was asked for: ``manifest.json``, never changed.

    Attributes
    ----------
    name, tool, parameters
        As in the plan.
    key : str
        ``sha256:…``, the same for the same work (see :func:`job_key`).
    stages : tuple of StageInfo
        In order.
    created : str
        Time in UTC, ISO 8601.
    user, host, folder, path, envs : str
        Who asked, where; PATH and the place of the environments there.
    packages : tuple of str
        What stages that use this PATH find of the person's own Python packages.
    aws : mapping of str to str
        By which profile, region and endpoint inputs in S3 are read; no keys.
    """

    name: str
    tool: str
    key: str
    stages: tuple[StageInfo, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    user: str = ""
    host: str = ""
    folder: str = ""
    path: str = ""
    envs: str = ""
    packages: tuple[str, ...] = ()
    aws: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, key: str) -> Manifest:
        """Make the manifest of a plan, here and now."""
        path = os.environ.get("PATH", os.defpath)
        by_path = any(stage.environment is None for stage in plan.stages)
        return cls(
            name=plan.name,
            tool=plan.tool,
            key=key,
            stages=tuple(
                StageInfo(
                    name=stage.name,
                    tasks=len(stage.tasks),
                    units=sum(task.units for task in stage.tasks),
                    resources=stage.resources,
                    environment=stage.environment,
                    depends_on=stage.depends_on,
                    tolerate_failures=stage.tolerate_failures,
                    retries=stage.retries,
                    driver=drivers.module_name(stage.driver) if stage.driver else "",
                    shared_inputs=tuple(
                        address for address, tasks in remote_inputs(stage).items() if tasks > 1
                    ),
                )
                for stage in plan.stages
            ),
            parameters=plan.parameters,
            created=now(),
            user=_user(),
            host=socket.gethostname(),
            folder=str(Path.cwd()),
            path=path,
            envs=str(environments_root(_environments(plan))),
            packages=tuple(packages_on(path)) if by_path else (),
            aws=remote.settings() if plan.remote_inputs else {},
        )

    @property
    def run_name(self) -> str:
        """Name of the run folder: the job's name and the start of its key."""
        return run_name(self.name, self.key)

    @property
    def workflow(self) -> str:
        """Name of the workflow: the tool without its version."""
        return (self.tool.split() or [""])[0]

    def stage(self, name: str) -> StageInfo:
        """Return a stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in _TEXTS},
            "parameters": dict(self.parameters),
            "packages": list(self.packages),
            **({"aws": dict(self.aws)} if self.aws else {}),
            "stages": [stage.to_json() for stage in self.stages],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Make it of what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            A newer labkit wrote it.
        """
        if data.get("format", 0) > FORMAT:
            raise ValueError(f"format {data['format']} of the run folder needs a newer labkit")
        return cls(
            **{name: data[name] for name in _TEXTS},
            parameters=data["parameters"],
            packages=tuple(data.get("packages", ())),  # earlier labkits wrote none
            aws=data.get("aws", {}),
            stages=tuple(StageInfo.from_json(stage) for stage in data["stages"]),
        )


_TEXTS = ("name", "tool", "key", "created", "user", "host", "folder", "path", "envs")


def _environments(plan: Plan) -> list[str]:
    places = [stage.environment for stage in plan.stages]
    return [place.name for place in places if isinstance(place, Environment)]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user often has no name
        return str(os.geteuid())


def now() -> str:
    """Return the time in UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_name(name: str, key: str) -> str:
    """Return the name of the run folder."""
    return f"{name}-{key.removeprefix('sha256:')[:12]}"


def submission_name(manifest: Manifest, place: Path, number: int) -> str:
    """Return the name of a submission, which no other run and no other person has.

    In pods everybody has the same account and the same home: the machine's name tells them apart.

    Parameters
    ----------
    manifest : Manifest
        The run's.
    place : Path
        The run folder: the same work in two folders is two runs.
    number : int
        Which submission of the run.
    """
    whose = f"{place}\0{manifest.user}\0{manifest.host}"
    digest = hashlib.sha256(whose.encode()).hexdigest()[:12]
    return f"labkit-{manifest.run_name}-{digest}-{number}"


def task_line(task: Task) -> str:
    """Return a task as a line of the task table."""
    return json.dumps(
        {
            "index": task.index,
            "key": task.key,
            "argv": task.argv,
            "inputs": task.inputs,
            "outputs": task.outputs,
            "env": dict(task.env),
            "units": task.units,
            "params": dict(task.params),
        },
        separators=(",", ":"),
    )


def job_key(plan: Plan, tables: Mapping[str, str], root: Path | None = None) -> str:
    """Return the key of the work: the same work has the same key, wherever it runs.

    It hashes the tool, the parameters, each stage's task table, environment and driver, the
    plan's own files, and of each input and each path that a command names the path, size and
    time of change. (Contents are not read: hashing a plate of images takes longer than the
    question is worth.) Resources, retries and the backend do not belong to it: asking again with
    more memory is the same work.

    Parameters
    ----------
    plan : Plan
        The work.
    tables : mapping of str to str
        Each stage's task table as it will be written.
    root : Path
        Folder that the run folder is made in: a named folder that holds it changes with each job,
        so that only its path counts.
    """
    digest = hashlib.sha256()

    def add(kind: str, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else value
        digest.update(f"{kind}:{len(data)}:".encode())
        digest.update(data)

    add("format", str(FORMAT))
    add("tool", plan.tool)
    add("parameters", json.dumps(dict(plan.parameters), sort_keys=True, default=str))
    for stage in plan.stages:
        add("stage", stage.name)
        add("depends", json.dumps([stage.depends_on, stage.tolerate_failures]))
        add("environment", environment_digest(stage.environment))
        add("tasks", tables[stage.name])
        if stage.driver:
            add("driver", drivers.module_name(stage.driver))
            for module, content in drivers.files(stage.driver):
                add("module", module)
                add("content", content)
        for identity in _identities(stage):
            add("input", identity)
    for identity in remote.identities(plan.remote_inputs):
        add("input", identity)
    for identity in _fingerprints(plan.fingerprinted, root):
        add("named", identity)
    for name in sorted(plan.files):
        given = plan.files[name]
        add("file", name)
        add("content", given.read_bytes() if isinstance(given, Path) else given)
    return "sha256:" + digest.hexdigest()


def _identities(stage: Stage) -> Iterator[str]:
    """Return the identity of each input once; what the run makes itself has none yet."""
    seen: set[str] = set()
    for task in stage.tasks:
        for text in task.inputs:
            if text in seen or is_remote(text):
                continue
            seen.add(text)
            try:
                path = string.Template(text).substitute({})
            except (KeyError, ValueError):
                continue
            yield identity(path)


def _fingerprints(paths: Iterable[str], root: Path | None) -> Iterator[str]:
    """Return the identity of each path that the commands name."""
    written = [folder.resolve() for folder in (root, Path.home()) if folder is not None]
    for path in paths:
        place = Path(path).resolve()
        holds_runs = any(folder.is_relative_to(place) for folder in written)
        yield path if holds_runs else identity(path)


def identity(path: str) -> str:
    """Return path, size and time of change (ns) of a file, or of all files below a folder."""
    try:
        status = os.stat(path)
    except OSError:
        return f"{path}\0missing"
    if not os.path.isdir(path):
        return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
    found = []
    for root, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            try:
                below = os.stat(os.path.join(root, name))
            except OSError:  # a link to nothing, or gone this moment
                found.append(f"{root}/{name}\0missing")
                continue
            found.append(f"{root}/{name}\0{below.st_size}\0{below.st_mtime_ns}")
        if len(found) > _LISTED:
            break
    return "\n".join(found)


def environment_digest(environment: Environment | Container | None) -> str:
    """Return what an environment holds: the names and versions of its Python packages.

    The lists of packages are compared, not files: the same lock gives the same digest on every
    machine.
    """
    if environment is None:
        own = packages_on(os.environ.get("PATH", os.defpath))
        # Jobs of those who have none keep the key that they had.
        return "path:" + hashlib.sha256("\n".join(own).encode()).hexdigest() if own else "path"
    if isinstance(environment, Container):
        return f"container:{environment.image}"
    folder = environment_folder(environment.name)
    packages = sorted(path.name for path in folder.glob("lib/python3*/site-packages/*.dist-info"))
    return f"env:{environment.name}:" + hashlib.sha256("\n".join(packages).encode()).hexdigest()


def environments_root(names: Iterable[str] = ()) -> Path:
    """Return where the lab's environments lie: ``$LABHUB_ENVS``, else beside this Python's.

    Parameters
    ----------
    names : iterable of str
        Environments that must be there; where no place has them all, it is the first place.
    """
    roots = [Path(sys.prefix).parent]
    if named := os.environ.get("LABHUB_ENVS"):
        roots.insert(0, Path(named))
    wanted = list(names)
    there = (root for root in roots if all((root / name).is_dir() for name in wanted))
    return next(there, roots[0])


def environment_folder(name: str) -> Path:
    """Return where an environment of the lab lies, whether it is there or not."""
    return environments_root([name]) / name
