"""Which rights people and services have: one table, deny by default.

Users keep JupyterHub's own ``user`` and ``server`` roles, which reach only themselves, and the
apps that are for everybody.
"""

from __future__ import annotations

from typing import Any

from hub import activity, control
from hub.paths import Paths
from hub.services import hubside
from hub.settings import Settings


def load_roles(settings: Settings, paths: Paths) -> list[dict[str, Any]]:
    """Return JupyterHub's ``load_roles``: each service with its narrowest scopes."""
    return activity.roles(settings) + control.roles() + hubside.roles(settings, paths)
