"""JupyterHub's internal SSL for a server whose host is known only after its start."""

from __future__ import annotations

from typing import Any

from hub.slurm import addresses, certificates
from hub.spawners.base import LabSpawner
from hub.spawners.startup import StartError
from labkit.slurm.commands import SlurmUnavailableError


class InternalSSL(LabSpawner):
    """A mixin before a spawner: its certificate holds on every node, and travels with the job."""

    _packed: str = ""

    async def create_certs(self) -> dict[str, str]:
        """Make the server's certificate: for its owner's origin and each node of its partition.

        Raises
        ------
        StartError
            SLURM does not say which nodes there are.
        """
        try:
            nodes = await addresses.of_partition(self.partition)
        except SlurmUnavailableError as error:
            raise StartError(
                f"SLURM does not answer at the moment ({error}). Try again in some minutes.",
                status_code=503,
                reason="slurm",
            ) from None
        self.ssl_alt_names = [*self.trusted_alt_names, *certificates.of_nodes(nodes)]
        files: dict[str, str] = await super().create_certs()
        # At once: another start of the same person's writes to the same files.
        self._packed = certificates.for_job(files)
        return files

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Return no path: the node has none of the hub's files, its job makes its own."""
        return {}

    def certificate_env(self) -> dict[str, str]:
        """Return the variables with which the certificate goes to the job."""
        return {certificates.VARIABLE: self._packed} if self.internal_ssl else {}

    async def certified(self, node: str, address: str) -> str:
        """Return by which name the hub calls a node, so that its certificate holds."""
        return await addresses.by_name(node, address) if self.internal_ssl else address

    def clear_state(self) -> Any:
        """Forget the key."""
        self._packed = ""
        return super().clear_state()
