"""From the lab file's section ``slurm`` to JupyterHub's settings."""

from __future__ import annotations

from traitlets.config import Config

from hub.settings import Settings


def configure(c: Config, settings: Settings) -> None:
    """Set the slurm target's part: where the hub is reached, its patience, the safe door."""
    if settings.target != "slurm" or settings.slurm is None:
        return
    from hub.slurm import door

    port = settings.local.hub_port
    # Compute nodes come from outside; the other programs of the portal still use loopback.
    c.JupyterHub.hub_bind_url = f"http://0.0.0.0:{port}"
    c.JupyterHub.hub_connect_url = f"http://{settings.slurm.hub_host}:{port}"
    c.SlurmSpawner.start_timeout = int(settings.slurm.queue_timeout.total_seconds())
    door.install()
