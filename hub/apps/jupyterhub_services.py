"""What the hub knows of the apps: a service and, by group, the right to open it."""

from __future__ import annotations

import logging
import os
from typing import Any

from hub.apps import catalogue
from hub.apps.catalogue import App
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from services.gate import keys

log = logging.getLogger(__name__)

TOKEN = "LABHUB_GATE_KEY"  # noqa: S105 - the variable's name
MARK = {"labhub": "app"}
SYNC = "custom:labhub:apps"
# Ask for it; who may publish is `hub.apps.members.publish`'s to say.
PUBLISH = "custom:labhub:publish-apps"
# What a person's own programs may do for them: with this, open the apps that they may open.
SERVER_SCOPES = ["users:activity!user", "access:servers!server", "access:services", PUBLISH]
_ROLE = "app-"
# Every home page asks; the lab file is the hub's own, which changes with its start alone.
_read: dict[Paths, tuple[object, list[App]]] = {}


def scope(app: App) -> str:
    """Return the right to open an app."""
    return f"access:services!service={app.name}"


def role_name(name: str) -> str:
    """Return the role of those who may open an app."""
    return f"{_ROLE}{name}"


def is_ours(role: str) -> bool:
    """Return whether a role is one of an app's."""
    return role.startswith(_ROLE)


def apps(settings: Settings, paths: Paths) -> list[App]:
    """Return the apps that the hub serves; none where there is no gate before them."""
    if not os.environ.get(TOKEN):
        return []
    stamp = catalogue.stamp(paths)
    known = _read.get(paths)
    if known is not None and known[0] == stamp:
        return known[1]
    declared, problems = catalogue.read(settings, paths)
    for problem in problems:
        log.error("An app is left out: %s", problem)
    _read[paths] = (stamp, declared)
    return declared


def services(settings: Settings, paths: Paths, gate_url: str) -> list[dict[str, Any]]:
    """Return the apps for ``JupyterHub.services``: external, all at the gate.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    gate_url : str
        Where the proxy reaches the gate.
    """
    return [service(app, gate_url) for app in apps(settings, paths)]


def service(app: App, gate_url: str) -> dict[str, Any]:
    """Return one app as JupyterHub declares a service."""
    return {
        "name": app.name,
        "url": gate_url,
        "api_token": keys.derived(os.environ[TOKEN], keys.HUB_TOKEN, app.name),
        "oauth_no_confirm": True,
        "display": False,  # the home page has cards of its own
        "info": dict(MARK),
        "timeout": 5,
    }


def roles(settings: Settings, paths: Paths) -> list[dict[str, Any]]:
    """Return who may open which app, for ``JupyterHub.load_roles``."""
    known = apps(settings, paths)
    everybody = [scope(app) for app in known if not app.groups]
    return [
        {
            "name": "user",
            "description": "Standard user privileges",
            "scopes": ["self", PUBLISH, *everybody],
        },
        *(
            {
                "name": role_name(app.name),
                "description": f"Open {app.service.title}",
                "scopes": [scope(app)],
                "groups": list(app.groups),
            }
            for app in known
            if app.groups
        ),
    ]
