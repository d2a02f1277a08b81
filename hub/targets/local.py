"""The target local: user servers on the portal's own machine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from traitlets.config import Config

from hub.labfile.addresses import PortalAddresses
from hub.sandbox import checks, remove_all, sandboxes_of
from hub.sandbox.network import GATE_PORT
from hub.targets.base import Finding, Target
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_size

if TYPE_CHECKING:
    from hub.spawners.base import LabSpawner


class LocalTarget(Target):
    """Each server in a sandbox, as root; without, the portal serves its owner alone."""

    on_this_machine = True

    @property
    def spawner_class(self) -> type[LabSpawner]:
        """Processes of this machine."""
        from hub.spawners.local import LocalSpawner

        return LocalSpawner

    start_takes = "a few seconds"

    def configure(self, c: Config) -> None:
        """Refuse to start with a wall missing."""
        errors = [problem for problem in self.problems() if not problem.warning]
        if errors:
            raise ProblemsError(errors)
        c.LocalSpawner.term_timeout = 10

    @property
    def can_end_servers(self) -> bool:
        """As root: each sandbox is known by its group."""
        return os.geteuid() == 0

    def end_servers(self) -> None:
        """End what is in the sandboxes, and take groups and firewall's rules away."""
        if self.can_end_servers:
            remove_all(sandboxes_of(self.settings, self.paths))

    @property
    def addresses(self) -> PortalAddresses:
        """All on 127.0.0.1; servers in sandboxes reach the gate by their own network's gateway."""
        addresses = PortalAddresses.of_one_host(self.settings)
        if os.geteuid() != 0:
            return addresses
        return replace(addresses, gate_for_servers=f"{self.settings.local.subnet[1]}:{GATE_PORT}")

    def problems(self) -> list[Problem]:
        """Return what stands in the way of the sandboxes."""
        return checks.problems(self.settings, self.paths)

    def findings(self) -> list[Finding]:
        """Compare the profiles with this machine's memory."""
        import psutil

        memory = psutil.virtual_memory().total
        problems = [
            Problem(
                f"profiles.{profile.name}.memory",
                f"profile {profile.name} may use more memory than this machine has",
                "make it smaller",
                warning=True,
            )
            for profile in self.settings.profiles
            if profile.memory > memory
        ]
        return [Finding("user servers", f"on this machine, {format_size(memory)}", tuple(problems))]
