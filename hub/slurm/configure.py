"""From the lab file's section ``slurm`` to JupyterHub's settings."""

from __future__ import annotations

from traitlets.config import Config

from hub.labfile.schema import Settings
from hub.labfile.slurm import Slurm
from hub.state.paths import Paths


def configure(c: Config, settings: Settings, slurm: Slurm, paths: Paths) -> None:
    """Set the slurm target's part: its time-outs, TLS, the second listener, its API handlers.

    Parameters
    ----------
    c : Config
        JupyterHub's configuration object.
    settings : Settings
        The lab file.
    slurm : Slurm
        Its section.
    paths : Paths
        Where the portal keeps its state.
    """
    from hub.slurm import api_handlers, bind_addresses, certificates

    c.SlurmSpawner.start_timeout = int((slurm.queue_timeout + slurm.boot_timeout).total_seconds())
    # A start that is resumed may wait long: the hub is there meanwhile.
    c.JupyterHub.init_spawners_timeout = 3
    if slurm.internal_ssl:
        certificates.configure(c, settings, slurm, paths)
    if bind_addresses.needs_loopback(slurm.bind_address):
        bind_addresses.also_on_loopback(settings.local.hub_port)
    api_handlers.install()
