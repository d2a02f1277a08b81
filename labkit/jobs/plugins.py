"""Backends and workflows by their names: ours, and those that other distributions bring.

A distribution declares them as entry points; the name is what ``submit()`` and job files say::

    [project.entry-points."labhub.backends"]
    spooler = "my_lab.spooler:SpoolerBackend"

    [project.entry-points."labhub.workflows"]
    wordcount = "my_lab.wordcount:WordCount"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from labkit.base.problems import LabkitError, unknown_name

DISTRIBUTION = "labhub"
BACKENDS = "labhub.backends"
WORKFLOWS = "labhub.workflows"
#: Ours, equal to those in pyproject.toml: a checkout has them without being installed.
OURS: Mapping[str, Mapping[str, str]] = {
    BACKENDS: {
        "batch": "labkit.jobs.backends.batch:BatchBackend",
        "kubernetes": "labkit.jobs.backends.kubernetes:KubernetesBackend",
        "local": "labkit.jobs.backends.local:LocalBackend",
        "slurm": "labkit.jobs.backends.slurm:SlurmBackend",
    },
    WORKFLOWS: {
        "alignment": "labkit.workflows.alignment:Alignment",
        "cellprofiler": "labkit.workflows.cellprofiler:CellProfiler",
        "command": "labkit.workflows.command:Command",
        "variants": "labkit.workflows.alignment.variants:Variants",
    },
}
_KINDS = {BACKENDS: "backend", WORKFLOWS: "workflow"}
# "spooler_queue=" is the option "queue" of the backend "spooler": no underscore in its name.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_VALUE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class PluginError(LabkitError):
    """A backend or workflow cannot be used; the text names the distribution that brings it."""


@dataclass(frozen=True)
class Plugin:
    """One declared backend or workflow, not imported yet.

    Attributes
    ----------
    group : str
        :data:`BACKENDS` or :data:`WORKFLOWS`.
    name : str
        What people call it.
    value : str
        ``"module:Class"``.
    distribution : str
        Name of the distribution that declares it, as pip lists it.
    """

    group: str
    name: str
    value: str
    distribution: str

    @property
    def kind(self) -> str:
        """``"backend"`` or ``"workflow"``."""
        return _KINDS[self.group]

    @property
    def class_name(self) -> str:
        """Name of its class."""
        return self.value.rpartition(":")[2]

    def load(self, base: type = object) -> Any:
        """Import its class.

        Parameters
        ----------
        base : type
            What it must be a subclass of.

        Returns
        -------
        type
            The class.

        Raises
        ------
        PluginError
            Its name or class is none, it cannot be imported, or is no subclass of ``base``.
        """
        if not _NAME.fullmatch(self.name) or not _VALUE.fullmatch(self.value):
            raise self._error(f"is declared wrongly, as {self.value!r}: see labkit.jobs.plugins")
        module, _, name = self.value.partition(":")
        try:
            loaded = getattr(import_module(module), name)
        except Exception as error:  # whatever a module does when it is imported
            raise self._error(f"cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise self._error(f"is no {base.__name__}: {self.value}")
        return loaded

    def _error(self, text: str) -> PluginError:
        return PluginError(
            f"The {self.kind} {self.name!r} of the distribution {self.distribution!r} {text}. "
            f"Ask who maintains {self.distribution}, or uninstall it."
        )


@cache
def declared(group: str) -> Mapping[str, tuple[Plugin, ...]]:
    """Return what is declared, by name; more than one where distributions clash.

    It is looked up once in a process: after an installation, restart the kernel.

    Parameters
    ----------
    group : str
        :data:`BACKENDS` or :data:`WORKFLOWS`.
    """
    plugins: dict[str, dict[Plugin, None]] = {}
    for name, value in OURS[group].items():
        plugins.setdefault(name, {})[Plugin(group, name, value, DISTRIBUTION)] = None
    for point in entry_points(group=group):
        distribution = point.dist.name if point.dist else "unknown"
        if distribution != DISTRIBUTION:  # ours are there already
            plugin = Plugin(group, point.name, point.value, distribution)
            plugins.setdefault(point.name, {})[plugin] = None
    return {name: tuple(several) for name, several in sorted(plugins.items())}


def names(group: str) -> list[str]:
    """Return the names of a group, in alphabetical order."""
    return list(declared(group))


def find(group: str, name: str) -> Plugin:
    """Return a backend or workflow by its name.

    Raises
    ------
    LabkitError
        There is none of that name; the text lists those that there are.
    PluginError
        Several distributions declare it.
    """
    plugins = declared(group).get(name, ())
    if not plugins:
        raise LabkitError(str(unknown_name(_KINDS[group], str(name), names(group))))
    if len(plugins) > 1:
        distributions = " and ".join(sorted(repr(plugin.distribution) for plugin in plugins))
        raise PluginError(
            f"The {plugins[0].kind} {name!r} is declared by the distributions {distributions}. "
            "Uninstall all but one of them, or ask one's maintainers for another name."
        )
    return plugins[0]


def find_class(name: str) -> Plugin | None:
    """Return the workflow whose class has this name, ours before others'; None: there is none.

    Raises
    ------
    PluginError
        Several other distributions have one.
    """
    for key, value in OURS[WORKFLOWS].items():
        if value.rpartition(":")[2] == name:
            return Plugin(WORKFLOWS, key, value, DISTRIBUTION)
    plugins = [
        plugin
        for several in declared(WORKFLOWS).values()
        for plugin in several
        if plugin.class_name == name
    ]
    if len(plugins) > 1:
        classes = " and ".join(f"{plugin.value} of {plugin.distribution!r}" for plugin in plugins)
        raise PluginError(f"labkit.{name} could be {classes}. Import the class of its module.")
    return plugins[0] if plugins else None
