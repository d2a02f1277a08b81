"""One spawner per target; what they share is in ``base``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Imported by name: a target's libraries are loaded where that target is used.
SPAWNERS = {
    "local": ("hub.spawners.local", "LocalSpawner"),
    "slurm": ("hub.spawners.slurm", "SlurmSpawner"),
}


def spawner_class(target: str) -> Any:
    """Return the spawner class of a target.

    Raises
    ------
    LookupError
        This version has no spawner for the target.
    """
    if target not in SPAWNERS:
        raise LookupError(
            f"this version of Labhub has no spawner for target {target!r}; "
            f"it has: {', '.join(SPAWNERS)}"
        )
    module, name = SPAWNERS[target]
    return getattr(import_module(module), name)
