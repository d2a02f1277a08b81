"""From the lab file to the walls."""

from __future__ import annotations

from hub.labfile.schema import Settings
from hub.sandbox import cgroups
from hub.sandbox.accounts import Accounts
from hub.sandbox.bubblewrap import environment_folders
from hub.sandbox.instance import Instance
from hub.sandbox.network import Network
from hub.sandbox.sandboxes import Sandboxes, Shared
from hub.state.paths import Paths


def accounts_of(settings: Settings) -> Accounts:
    """Return the Unix accounts that a lab file speaks of."""
    return Accounts(settings.authentication.unix_group, settings.storage.homes)


def sandboxes_of(settings: Settings, paths: Paths) -> Sandboxes:
    """Return the sandboxes of a portal; nothing is made yet.

    Raises
    ------
    CgroupError
        This host cannot limit user servers.
    """
    instance = Instance.of(paths)
    gate = instance.gate_uid()
    network = Network(
        instance,
        settings.local.subnet,
        settings.local.hub_port,
        allow=settings.local.allow_networks,
        uids=(0,) if gate is None else (0, gate),
        gate_port=settings.local.gate_port,
    )
    return Sandboxes(
        instance, network, cgroups.detect(instance.cgroup), shared_view(settings, paths)
    )


def shared_view(settings: Settings, paths: Paths) -> Shared:
    """Return what every server sees beside the system, its home, its /tmp and groups' folders."""
    shared = settings.folders_for(())
    return Shared(
        read_only=[
            *environment_folders(paths.envs),
            *(folder.path for folder in shared if folder.mode == "ro"),
        ],
        read_write=[folder.path for folder in shared if folder.mode == "rw"],
        hidden=[paths.state, settings.storage.homes],
    )
