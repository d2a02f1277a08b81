"""The target slurm: each user server is a job of its owner's on the lab's cluster."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from traitlets.config import Config

from hub.labfile.addresses import Outside, PortalAddresses
from hub.labfile.slurm import LOOPBACK, Slurm
from hub.slurm import certificates, checks
from hub.targets.base import Finding, Target
from labkit.base.problems import Problem

if TYPE_CHECKING:
    from hub.spawners.base import LabSpawner


class SlurmTarget(Target):
    """Hub, proxy, gate and apps on this machine, user servers on the nodes."""

    on_this_machine = False

    @property
    def section(self) -> Slurm:
        """The lab file's section, which the schema asks for.

        Raises
        ------
        LookupError
            There is none.
        """
        if self.settings.slurm is None:
            raise LookupError("the lab file has no section slurm")
        return self.settings.slurm

    @property
    def spawner_class(self) -> type[LabSpawner]:
        """SLURM's jobs."""
        from hub.spawners.slurm import SlurmSpawner

        return SlurmSpawner

    def configure(self, c: Config) -> None:
        """Set time-outs, TLS and the API by which a server names its port."""
        from hub.slurm.configure import configure

        configure(c, self.settings, self.section, self.paths)

    def handlers(self) -> list[Any]:
        """Return the administrators' page of all servers' jobs."""
        from hub.slurm import pages

        return pages.handlers()

    def template_vars(self) -> dict[str, Any]:
        """Return where that page is."""
        from hub.slurm import pages

        return {"jobs_page": pages.PATH}

    @property
    def addresses(self) -> PortalAddresses:
        """What the nodes use; the portal's own programs stay on 127.0.0.1."""
        ports, slurm = self.settings.local, self.section
        scheme = "https" if slurm.internal_ssl else "http"
        return replace(
            PortalAddresses.of_one_host(self.settings),
            hub_bind=f"{scheme}://{slurm.bind_address}:{ports.hub_port}",
            hub_connect=f"{scheme}://{slurm.hub_host}:{ports.hub_port}",
            gate_for_servers=f"{slurm.hub_host}:{ports.gate_port}",
            gate_outside=self._outside(),
        )

    def _outside(self) -> Outside | None:
        if self.section.bind_address == LOOPBACK:
            return None
        if not self.section.internal_ssl:
            return Outside(self.section.bind_address)
        own = certificates.of_gate(self.paths)
        files = map(str, (own.key, own.certificate, own.authorities))
        return Outside(self.section.bind_address, *files)

    def prepare(self) -> None:
        """Make the certificates of JupyterHub's internal SSL."""
        certificates.make(self.settings, self.section, self.paths)

    def proxy_words(self) -> list[str]:
        """Return the proxy's certificate and whom it believes."""
        return certificates.proxy_words(self.section, self.paths)

    def brings_environment(self, name: str) -> bool:
        """Return whether it is the cluster's: a module, an image, another folder."""
        return name in self.section.software or self.section.environments != self.paths.envs

    def problems(self) -> list[Problem]:
        """Return what does not fit the cluster."""
        return checks.problems(self.settings, self.section, self.paths)

    def findings(self) -> list[Finding]:
        """Look for jobs that the hub does not know, and who can reach the hub."""
        detail, problems = checks.left_over(self.paths)
        exposed = checks.exposure(self.settings, self.section)
        return [Finding("slurm", detail, (*problems, *exposed))]

    def node_finding(self, partition: str) -> Finding:
        """Try from a compute node what servers need there."""
        from hub.slurm.node_check import try_node

        report = try_node(self.settings, self.paths, partition or self.section.partitions[0])
        detail = "; ".join(report.seen) or "nothing could be tried"
        return Finding(f"node {report.node}".strip(), detail, report.problems)

    def rendered(self) -> dict[str, Callable[[], str]]:
        """AWS ParallelCluster's configuration, and the rule of sudo for a hub without root."""
        from hub.deploy.parallelcluster.render import render

        return {
            "parallelcluster": lambda: render(self.settings),
            "sudoers": lambda: checks.sudoers(self.settings, pwd.getpwuid(os.geteuid()).pw_name),
        }
