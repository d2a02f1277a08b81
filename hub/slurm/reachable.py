"""Whether the address that the nodes are told leads to the hub, as far as this host can know."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator

from hub.labfile.slurm import EVERYWHERE, Slurm
from hub.slurm.addresses import own_addresses
from labkit.base.problems import Problem
from labkit.slurm.nodes import Node


def problems(slurm: Slurm, nodes: Iterable[Node]) -> Iterator[Problem]:
    """Yield what is wrong with ``hub_host`` and ``listen``.

    Parameters
    ----------
    slurm : Slurm
        The lab file's section.
    nodes : iterable of Node
        The cluster's nodes; none where SLURM does not say.
    """
    own = own_addresses()
    if slurm.bind_address not in (EVERYWHERE, *own):
        text = f"this host has no address {slurm.bind_address} to listen on"
        hint = f"slurm.listen: one of {', '.join(own)} (or {EVERYWHERE}: all of them)"
        yield Problem("slurm.listen", text, hint)
    addresses = addresses_of(slurm.hub_host)
    if not addresses:
        text = f"{slurm.hub_host} has no IPv4 address"
        hint = "name the address by which the nodes reach this host"
        yield Problem("slurm.hub_host", text, hint)
        return
    outward = [text for text in own if not ipaddress.ip_address(text).is_loopback]
    loopback = [text for text in addresses if ipaddress.ip_address(text).is_loopback]
    shown = ", ".join(addresses)
    known = list(nodes)
    if loopback:
        if not _all_here(known, own):
            yield Problem(
                "slurm.hub_host",
                f"{slurm.hub_host} is {', '.join(loopback)} here, on a node the node itself",
                f"name this host's address in the cluster's network ({', '.join(outward)}), or"
                " correct /etc/hosts (Debian and Ubuntu write the host's name beside 127.0.1.1)",
                # A portal may start before its cluster does, which may be this machine alone.
                warning=not known,
            )
    elif slurm.bind_address == EVERYWHERE:
        if not set(addresses) & set(own):
            yield Problem(
                "slurm.hub_host",
                f"{slurm.hub_host} is {shown}, which is no address of this host",
                "right only where that address is handed on to this host without NAT of the nodes",
                warning=True,
            )
    elif slurm.bind_address not in addresses:
        yield Problem(
            "slurm.listen",
            f"hub and gate listen on {slurm.bind_address}, and nodes are sent to"
            f" {slurm.hub_host} ({shown})",
            f"slurm.hub_host: {slurm.bind_address}, or listen on {shown}",
        )


def addresses_of(name: str) -> list[str]:
    """Return a host's IPv4 addresses as this host finds them; none where there are none."""
    try:
        found = socket.getaddrinfo(name, None, family=socket.AF_INET)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _all_here(nodes: Iterable[Node], own: Iterable[str]) -> bool:
    """Whether all nodes are this host, as in a cluster of one machine."""
    places = [addresses_of(node.address) for node in nodes]
    return bool(places) and all(place and set(place) <= set(own) for place in places)
