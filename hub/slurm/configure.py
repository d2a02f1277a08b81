"""From the lab file's section ``slurm`` to JupyterHub's settings."""

from __future__ import annotations

from traitlets.config import Config

from hub.labfile.schema import Settings
from hub.state.paths import Paths


def configure(c: Config, settings: Settings, paths: Paths) -> None:
    """Set the slurm target's part: where the hub is reached, its time-outs, its API handlers."""
    slurm = settings.slurm
    if settings.target != "slurm" or slurm is None:
        return
    from hub.slurm import api_handlers, bind_addresses, certificates

    port = settings.local.hub_port
    scheme = "https" if slurm.internal_ssl else "http"
    c.JupyterHub.hub_bind_url = f"{scheme}://{slurm.bind_address}:{port}"
    c.JupyterHub.hub_connect_url = f"{scheme}://{slurm.hub_host}:{port}"
    c.SlurmSpawner.start_timeout = int((slurm.queue_timeout + slurm.boot_timeout).total_seconds())
    # A start that is resumed may wait long: the hub is there meanwhile.
    c.JupyterHub.init_spawners_timeout = 3
    if slurm.internal_ssl:
        certificates.configure(c, settings, slurm, paths)
    if bind_addresses.needs_loopback(slurm.bind_address):
        bind_addresses.also_on_loopback(port)
    api_handlers.install()
