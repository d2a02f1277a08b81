"""Which servers count as used, and the culler that stops the others.

The user's server itself says when it was last used (`labkit.server.activity`): busy kernels,
held work and "keep running" count. The culler is jupyterhub-idle-culler, a process of its own
with four narrow scopes.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

from traitlets.config import Config

from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Settings
from hub.portal.merge import update
from hub.state.paths import REPOSITORY, Paths

SERVICE = "culler"
TOKEN = "LABHUB_CULLER_TOKEN"  # noqa: S105 - the variable's name
SCOPES = ("list:users", "read:users:activity", "read:servers", "delete:servers")
_FOREVER = 10**9  # seconds: the culler knows no "never"


def report_interval(settings: Settings) -> timedelta:
    """Return how often a server tells the hub when it was last used.

    A tenth of the idle time, so that a report that comes late never looks like idleness.
    """
    idle = settings.culling.idle or timedelta(hours=1)
    return min(max(idle / 10, timedelta(seconds=1)), timedelta(minutes=3))


def configure(c: Config, settings: Settings, _paths: Paths) -> None:
    """Tell the servers the rules, and let only them say when they were used."""
    max_age = settings.culling.max_age
    c.JupyterHub.proxy_class = "hub.portal.lab_proxy.LabProxy"
    c.JupyterHub.activity_resolution = int(
        min(30.0, report_interval(settings).total_seconds()) // 2
    )
    environment = {
        "JUPYTERHUB_ACTIVITY_INTERVAL": _seconds(report_interval(settings)),
        "LABHUB_KEEP_MAX_SECONDS": _seconds(settings.culling.keep_at_most),
        "LABHUB_MAX_AGE_SECONDS": _seconds(max_age) if max_age else "0",
    }
    update(c.Spawner, "environment", environment)


def services(_settings: Settings, _paths: Paths) -> list[dict[str, Any]]:
    """Return the culler's declaration: external, it runs under the portal's supervisor."""
    token = os.environ.get(TOKEN)
    return [{"name": SERVICE, "api_token": token}] if token else []


def roles(_settings: Settings) -> list[dict[str, Any]]:
    """Return the culler's role: it may see who is idle and stop servers, nothing else."""
    if not os.environ.get(TOKEN):
        return []
    return [
        {
            "name": SERVICE,
            "description": "Stop servers that nobody uses",
            "scopes": list(SCOPES),
            "services": [SERVICE],
        }
    ]


def culler_command(settings: Settings, addresses: PortalAddresses) -> list[str]:
    """Return the command that runs the culler.

    It reads its token from the variable ``JUPYTERHUB_API_TOKEN`` and its patience from the
    lab file, in `hub.portal.culler_config`.

    Parameters
    ----------
    settings : Settings
        The lab file.
    addresses : PortalAddresses
        Where it asks the hub.

    Returns
    -------
    list of str
        Empty where the lab file says that no server is ever stopped.
    """
    culling = settings.culling
    if culling.idle is None and culling.max_age is None:
        return []
    return [
        sys.executable,
        "-m",
        "jupyterhub_idle_culler",
        f"--config={REPOSITORY / 'hub' / 'portal' / 'culler_config.py'}",
        f"--url={addresses.hub}/api",
        f"--timeout={_seconds(culling.idle) if culling.idle else _FOREVER}",
        f"--max-age={_seconds(culling.max_age) if culling.max_age else 0}",
        f"--cull-every={_seconds(culling.check_every)}",
    ]


def _seconds(duration: timedelta) -> str:
    return str(max(1, round(duration.total_seconds())))
