"""The targets: one object each, which answers all that differs between them.

`base` says what is asked. Whoever needs to know it asks the target of the portal, `of`; nothing
else compares the lab file's ``target``.
"""

from __future__ import annotations

from importlib import import_module

from hub.labfile.schema import Settings
from hub.state.paths import Paths
from hub.targets.base import Finding, Target
from labkit.base.problems import Problem, ProblemsError

__all__ = ["TARGETS", "Finding", "Target", "of"]

# Imported by name: a target's libraries are loaded where that target is used.
TARGETS = {
    "local": "hub.targets.local:LocalTarget",
    "slurm": "hub.targets.slurm:SlurmTarget",
}


def of(settings: Settings, paths: Paths) -> Target:
    """Return the target of a portal.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.

    Raises
    ------
    ProblemsError
        This version does not have it.
    """
    if settings.target not in TARGETS:
        text = (
            f"this version of Labhub has no spawner for target {settings.target!r}; "
            f"it has: {', '.join(TARGETS)}"
        )
        raise ProblemsError([Problem("target", text, "choose one of those")])
    module, _, name = TARGETS[settings.target].partition(":")
    target: type[Target] = getattr(import_module(module), name)
    return target(settings, paths)
