"""Options of a submit: those of every backend, and each backend's own with its prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from labkit.base.problems import Problem, refuse, unknown_name
from labkit.base.units import parse_size
from labkit.jobs.backends import base
from labkit.jobs.model import Resources, Stage, parse_time
from labkit.jobs.plan import Plan
from labkit.jobs.plugins import PluginError

#: Options of every submit, with their help.
OPTIONS = {
    "cpu": "cores of each task",
    "memory": "memory of each task, e.g. '4 GB'",
    "time": "longest time of each task, e.g. '2h'",
    "retries": "further attempts after a transient failure",
    "output": "folder that the run folder is made in",
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "cpu": float,
    "memory": parse_size,
    "time": parse_time,
}


def split_options(
    options: Mapping[str, Any], general: Iterable[str], backend: base.Backend
) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
    """Split what a caller gave into general options and the backend's own.

    Options of another backend are checked by name and left aside, so that one call serves all.

    Parameters
    ----------
    options : mapping
        As the caller gave them.
    general : iterable of str
        Names that do not belong to a backend.
    backend : Backend
        Whose own are wanted.

    Returns
    -------
    tuple
        General options, the backend's own without prefix, and the unknown ones as problems.
    """
    valid = list(general)
    offered: dict[str, set[str]] = {}
    for name in base.names():
        try:
            offered[name] = set(base.get(name).options)
        except PluginError:  # it says so itself when it is chosen
            continue
        valid += [f"{name}_{option}" for option in offered[name]]
    mine: dict[str, Any] = {}
    own: dict[str, Any] = {}
    problems = []
    for option, value in options.items():
        prefix, _, rest = option.partition("_")
        if option in general:
            mine[option] = value
        elif rest in offered.get(prefix, ()):
            if prefix == backend.name:
                own[rest] = value
        else:
            problems.append(unknown_name("option", option, valid))
    return mine, own, problems


def read_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Read ``cpu``, ``memory``, ``time`` and ``retries`` as a caller wrote them.

    Returns
    -------
    tuple
        Fields of :class:`labkit.Resources` to change, and the retries, if they were given.

    Raises
    ------
    RefusedError
        One of them cannot be read.
    """
    problems: list[Problem] = []
    changes: dict[str, Any] = {}
    for name, reader in _READERS.items():
        if options.get(name) is None:
            continue
        try:
            changes[name] = reader(options[name])
            Resources(**{name: changes[name]})
        except (TypeError, ValueError) as error:
            problems.append(Problem(name, f"{error}."))
    retries = options.get("retries")
    if retries is not None and (not isinstance(retries, int) or not 0 <= retries <= 10):
        problems.append(Problem("retries", f"must be a number from 0 to 10, not {retries!r}."))
    refuse(problems)
    return changes, retries


def with_options(plan: Plan, options: Mapping[str, Any]) -> Plan:
    """Return the plan with ``cpu``, ``memory``, ``time`` and ``retries`` of the caller.

    They are meant for the work itself: the stage ``gather`` keeps its own.

    Raises
    ------
    RefusedError
        One of them cannot be read.
    """
    changes, retries = read_options(options)

    def changed(stage: Stage) -> Stage:
        if stage.name == "gather" and len(plan.stages) > 1:
            return stage
        stage = replace(stage, resources=replace(stage.resources, **changes))
        return stage if retries is None else replace(stage, retries=retries)

    return replace(plan, stages=tuple(changed(stage) for stage in plan.stages))
