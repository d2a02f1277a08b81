"""Which rights people and services have: one table, deny by default.

Users keep JupyterHub's own ``user`` and ``server`` roles, which reach only themselves, and the
apps that are for everybody.
"""

from __future__ import annotations

from typing import Any

from hub.apps import jupyterhub_services
from hub.labfile.schema import Settings
from hub.portal import control, culling
from hub.state.paths import Paths


def load_roles(settings: Settings, paths: Paths) -> list[dict[str, Any]]:
    """Return JupyterHub's ``load_roles``: each service with its narrowest scopes."""
    return culling.roles(settings) + control.roles() + jupyterhub_services.roles(settings, paths)
