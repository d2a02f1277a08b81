"""Where the nodes are: the cluster's own words, not DNS, and this host's own addresses."""

from __future__ import annotations

import asyncio
import socket
import time

import psutil

from hub.slurm.commands import run_slurm
from labkit.slurm.commands import SlurmUnavailableError
from labkit.slurm.nodes import NODES, parse_nodes


class Addresses:
    """The nodes' addresses; asked anew only when a job started after the last question."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._asked = 0.0
        self._lock = asyncio.Lock()

    async def of(self, node: str, since: float) -> str:
        """Return a node's IP address.

        Parameters
        ----------
        node : str
            As squeue names it.
        since : float
            By ``time.monotonic()``: a cloud's node may have had another address before.

        Raises
        ------
        SlurmUnavailableError
            SLURM does not know the node, or its name has no address.
        """
        async with self._lock:
            if self._asked <= since or node not in self._known:
                asked = time.monotonic()
                nodes = parse_nodes(await run_slurm("scontrol", *NODES))
                self._known = {node.name: node.address for node in nodes}
                self._asked = asked
        name = self._known.get(node)
        if name is None:
            raise SlurmUnavailableError(f"SLURM does not say where its node {node!r} is")
        loop = asyncio.get_running_loop()
        try:
            places = await loop.getaddrinfo(name, None, family=socket.AF_INET)
        except OSError as error:
            raise SlurmUnavailableError(
                f"the node {node} ({name}) has no address: {error}"
            ) from error
        return str(places[0][4][0])


async def of_partition(partition: str) -> list[tuple[str, str]]:
    """Return name and address, as SLURM has it now, of all nodes of a partition.

    Raises
    ------
    SlurmUnavailableError
        SLURM does not say.
    """
    nodes = parse_nodes(await run_slurm("scontrol", *NODES))
    return [(node.name, node.address) for node in nodes if partition in node.partitions]


async def by_name(node: str, address: str) -> str:
    """Return a node's name where this host knows it for that address, else the address.

    A cloud gives a node its address when it starts: a certificate made before has its name.
    """
    loop = asyncio.get_running_loop()
    try:
        places = await loop.getaddrinfo(node, None, family=socket.AF_INET)
    except OSError:
        return address
    return node if address in {str(place[4][0]) for place in places} else address


def own_addresses() -> list[str]:
    """Return the IPv4 addresses of this host, loopback included."""
    found = {
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    }
    return sorted(found | {"127.0.0.1"})
