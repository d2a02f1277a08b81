"""Changes of the apps, put into force in the running portal: supervisor, gate and hub."""

from __future__ import annotations

from hub import targets
from hub.labfile.schema import Settings
from hub.portal.control import Control
from hub.state.paths import Paths


def apply(settings: Settings, paths: Paths) -> bool:
    """Put what is declared into force in the running portal.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.

    Returns
    -------
    bool
        False where it does not run; its next start takes it up.

    Raises
    ------
    ControlError
        The hub does not answer; the next `labhub up` puts it into force.
    """
    if not targets.of(settings, paths).app_runtime.follow():
        return False
    Control(settings, paths).sync_apps()
    return True
