"""The options of a submit to SLURM: their help, and the allow-list that each must pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem

HELP = {
    "partition": "partition; without it the cluster's default one",
    "account": "account that the time is booked on",
    "qos": "quality of service",
    "reservation": "reservation to run in",
    "constraint": "features that nodes must have, joined by & or |, e.g. 'icelake&nvme'",
    "gres": "generic resources of each task, e.g. 'gpu:a100:1'",
    "exclusive": "True: each array element has its node for itself",
    "array_limit": "most tasks of a stage that run at the same time",
    "max_jobs": "most array elements to put into the queue; where there are more tasks, several "
    "share an element and run one after the other",
    "modules": "environment modules to load, a name or a list; for one environment of the lab "
    "alone: {'cellprofiler': 'cellprofiler/4.2.8'}",
    "apptainer": "Apptainer image to run tasks in (.sif file or docker://name); for one "
    "environment of the lab alone: {'cellprofiler': '/images/cellprofiler.sif'}",
    "binds": "folders that an Apptainer container sees beside its standard ones, a list",
    "environments": "folder of the lab's environments on the nodes (LABHUB_ENVS there)",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,63}")
_FEATURES = re.compile(r"[A-Za-z0-9_.:+-]+(?:[&|][A-Za-z0-9_.:+-]+)*")
_GRES = re.compile(r"[a-z][a-z0-9_]*(?::[A-Za-z][A-Za-z0-9_.-]*)?(?::[1-9][0-9]{0,3})?")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,127}")
_IMAGE = re.compile(r"(?:docker|oras|library)://[A-Za-z0-9][A-Za-z0-9._/@:+-]{0,254}")
_PATH = re.compile(r"/[^\x00-\x1f\x7f:,]*")  # Apptainer takes ':' and ',' for more than a path
_ENVIRONMENT = re.compile(r"[a-z][a-z0-9-]{0,39}")
_MOST = 1_000_000
_TEXTS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Options:
    """Options that have passed.

    Attributes
    ----------
    modules, apptainer : mapping
        By the name of the lab's environment; ``""`` is for every stage but the gather.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    gres: str | None = None
    exclusive: bool = False
    array_limit: int | None = None
    max_jobs: int | None = None
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    apptainer: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[str, ...] = ()
    environments: str | None = None


def read(given: Mapping[str, Any]) -> tuple[Options, list[Problem]]:
    """Check what a person gave.

    Parameters
    ----------
    given : mapping
        Options without prefix; unknown names were refused before.

    Returns
    -------
    Options
        Those that are well.
    list of Problem
        All that is wrong.
    """
    passed: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in given.items():
        if value is None:
            continue
        try:
            passed[name] = _READERS[name](value)
        except (TypeError, ValueError) as error:
            problems.append(Problem(f"slurm_{name}", f"{error}.", f"It is for: {HELP[name]}."))
    options = Options(**passed)
    if options.binds and not options.apptainer:
        problems.append(Problem("slurm_binds", "is only for containers: give slurm_apptainer too."))
    return options, problems


def _matching(pattern: re.Pattern[str], example: str) -> Any:
    def reader(value: Any) -> str:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise TypeError(f"must be text like {example}, not {value!r}")
        if not pattern.fullmatch(str(value)):
            raise ValueError(f"{value!r} is not allowed; write it like {example}")
        return str(value)

    return reader


def _flag(value: Any) -> bool:
    found = _TEXTS.get(str(value).lower())
    if found is None:
        raise ValueError(f"must be True or False, not {value!r}")
    return found


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise ValueError(f"must be a number from 1 to {_MOST:,}, not {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split(",")
    if not isinstance(value, list | tuple):
        raise TypeError(f"must be text or a list, not {value!r}")
    return list(value)


def _modules(value: Any) -> tuple[str, ...]:
    names = tuple(map(_matching(_MODULE, "'cellprofiler/4.2.8'"), _list(value)))
    if not names:
        raise ValueError("names no module")
    return names


def _image(value: Any) -> str:
    if isinstance(value, Path) or str(value).startswith(("/", "~")):
        return _path(value)
    image: str = _matching(_IMAGE, "'/images/tool.sif' or 'docker://name@sha256:…'")(value)
    return image


def _path(value: Any) -> str:
    path = str(Path(value).expanduser())
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{value!r} is not allowed; give a full path without ':', ',' and line breaks"
        )
    return path


def _by_environment(reader: Any) -> Any:
    def read_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {"": reader(value)}
        for name in value:
            if not _ENVIRONMENT.fullmatch(str(name)):
                raise ValueError(f"{name!r} is no name of an environment of the lab")
        return {str(name): reader(one) for name, one in value.items()}

    return read_all


_READERS = {
    "partition": _matching(_NAME, "'main'"),
    "account": _matching(_NAME, "'lab1'"),
    "qos": _matching(_NAME, "'normal'"),
    "reservation": _matching(_NAME, "'course'"),
    "constraint": _matching(_FEATURES, "'icelake&nvme'"),
    "gres": _matching(_GRES, "'gpu:1' or 'gpu:a100:2'"),
    "exclusive": _flag,
    "array_limit": _count,
    "max_jobs": _count,
    "modules": _by_environment(_modules),
    "apptainer": _by_environment(_image),
    "binds": lambda value: tuple(map(_path, _list(value))),
    "environments": _path,
}
