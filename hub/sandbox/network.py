"""A network of its own for each user server: a veth pair, routed and filtered by nftables.

Every sandbox has one address and sees one neighbour, the gateway, which has the same address in
all of them: ``gateway:8081`` is the hub for the sandbox that asks, and nobody else's. The rules
name interfaces by their common beginning, so they are written once and not per server.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hub.sandbox.instance import Instance

# At the gateway; they stay when the lab file moves the ports of hub and gate.
HUB_PORT = 8081
GATE_PORT = 8082
_TRIES = 64
_FLOWS = 4096  # connections of one sandbox at once
_DOOR_FLOWS = 64  # and of those to the hub, and to the gate
_NO = "reject with icmpx admin-prohibited"  # at once: a program that is refused should not hang
_NAMESPACES = Path("/run/netns")
_SYSCTL = Path("/proc/sys/net/ipv4")

# Where no user server has business unless the lab file says so (RFC 6890), with the metadata
# services of the clouds: 169.254.169.254, 100.100.100.200, 192.0.0.192 are in these, Azure's is
# a public address. IPv6 is off in the sandboxes altogether.
CLOSED = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)

IPv4Network = ipaddress.IPv4Network


class NetworkError(OSError):
    """The kernel refused a part of the network; the text says which."""


@dataclass(frozen=True)
class Link:
    """How one sandbox is reached.

    Attributes
    ----------
    namespace : Path
        The network namespace, for ``nsenter --net``.
    interface : str
        The host's end.
    address : str
        The sandbox's address.
    """

    namespace: Path
    interface: str
    address: str


class Network:
    """The networks of one portal's user servers.

    Parameters
    ----------
    instance : Instance
        Gives the names.
    subnet : IPv4Network
        Addresses for the sandboxes; the first is the gateway's.
    hub_port : int
        Where the hub listens on 127.0.0.1.
    allow : iterable of networks
        Private networks that the sandboxes may reach all the same.
    uids : iterable of int
        The host's accounts that may connect to a sandbox: those of hub, proxy and gate.
    gate_port : int
        Where the gate before the apps listens on 127.0.0.1; 0: there is none.
    """

    def __init__(
        self,
        instance: Instance,
        subnet: IPv4Network,
        hub_port: int,
        allow: Iterable[IPv4Network | ipaddress.IPv6Network] = (),
        uids: Iterable[int] = (0,),
        gate_port: int = 0,
    ) -> None:
        self.instance = instance
        self.subnet = subnet
        self.hub_port = hub_port
        self.allow = tuple(net for net in allow if isinstance(net, IPv4Network))
        self.uids = tuple(uids)
        self.gate_port = gate_port
        self._applied = ""

    @property
    def gateway(self) -> str:
        """The host, as each sandbox sees it."""
        return str(self.subnet[1])

    @property
    def hub_url(self) -> str:
        """Where a sandbox reaches the hub."""
        return f"http://{self.gateway}:{HUB_PORT}"

    @property
    def services_url(self) -> str:
        """Where a sandbox reaches the gate before the apps; empty where there is none."""
        return f"http://{self.gateway}:{GATE_PORT}" if self.gate_port else ""

    # -- the rules --------------------------------------------------------------------

    def ruleset(self) -> str:
        """Return the nftables rules: one transaction that replaces the table."""
        table, sandbox = self.instance.table, f'"{self.instance.interfaces}*"'
        resolvers, loopback = resolvers_of_host()
        closed = [*CLOSED, *(str(net) for net in attached_networks())]
        dns = "meta l4proto { tcp, udp } th dport 53"
        to_resolvers = _rule("ip daddr", resolvers, f"{dns} accept")
        local_dns = ""
        if loopback:
            local_dns = f"iifname {sandbox} ip daddr {self.gateway} {dns} dnat ip to {loopback}"
        open_ports = {HUB_PORT: self.hub_port, GATE_PORT: self.gate_port}
        to_open_ports = "\n    ".join(
            f"iifname {sandbox} ip daddr {self.gateway} tcp dport {port} dnat ip to 127.0.0.1:{own}"
            for port, own in open_ports.items()
            if own
        )
        own_doors = [own for own in open_ports.values() if own]
        own_ports = _rule("tcp dport", own_doors, "ct status dnat")
        # What proxy and gate send to a sandbox that is gone must stay on the host: it has cookies.
        # Not on lo: the gateway is this host's own, and refusals travel back to it there.
        stays = f'ip daddr {self.subnet} oifname != "lo" oifname != "lh*" {_NO}'
        # One sandbox must not use up the host's table of connections.
        many = f"ct state new add @flows {{ ip saddr ct count over {_FLOWS} }} {_NO}"
        # Nor the descriptors of hub and gate.
        of_door = f"add @doors {{ ip saddr . tcp dport ct count over {_DOOR_FLOWS} }}"
        many_at_door = _rule(
            "tcp dport",
            own_doors,
            # The kernel sends few refusals of the other kind: a program would hang.
            f"ct status dnat ct state new {of_door} reject with tcp reset",
        )
        return f"""\
table inet {table}
delete table inet {table}
table inet {table} {{
  set closed {{
    type ipv4_addr; flags interval; auto-merge
    elements = {{ {", ".join(closed)} }}
  }}
  set flows {{
    type ipv4_addr; flags dynamic
  }}
  set doors {{
    type ipv4_addr . inet_service; flags dynamic
  }}
  chain to_host {{
    type nat hook prerouting priority dstnat
    {to_open_ports}
    {local_dns}
  }}
  chain to_world {{
    type nat hook postrouting priority srcnat
    ip saddr {self.subnet} oifname != "lh*" masquerade
  }}
  chain host {{
    type filter hook input priority filter
    iifname != {sandbox} accept
    ct state established,related accept
    {many}
    {many_at_door}
    ip daddr 127.0.0.1 {own_ports} accept
    {_rule("ip daddr", [loopback] if loopback else [], f"{dns} ct status dnat accept")}
    {to_resolvers}
    {_NO}
  }}
  chain world {{
    type filter hook forward priority filter
    oifname {sandbox} ct state established,related accept
    iifname "lh*" oifname "lh*" {_NO}
    oifname {sandbox} drop
    iifname != {sandbox} accept
    meta nfproto ipv6 drop
    {many}
    {to_resolvers}
    {_rule("ip daddr", self.allow, "accept")}
    ip daddr @closed {_NO}
  }}
  chain from_host {{
    type filter hook output priority filter
    {stays}
    oifname != {sandbox} accept
    ct state established,related accept
    meta skuid {{ {", ".join(str(uid) for uid in self.uids)} }} accept
    {_NO}
  }}
}}
"""

    def ensure(self) -> None:
        """Put the rules in place, whatever was there, and let the host pass packets on.

        Raises
        ------
        NetworkError
            nft refused.
        """
        rules = self.ruleset()
        if rules != self._applied or not self.in_force():
            _run(["nft", "-f", "-"], rules)
            self._applied = rules
        forward = _SYSCTL / "ip_forward"
        if forward.read_text().strip() != "1":
            forward.write_text("1")

    def check(self) -> None:
        """Try the rules on the kernel and change nothing.

        Raises
        ------
        NetworkError
            It lacks something.
        """
        _run(["nft", "--check", "-f", "-"], self.ruleset())

    def in_force(self) -> bool:
        """Whether the rules are there: an administrator may have reloaded the firewall."""
        command = ["nft", "list", "chain", "inet", self.instance.table, "host"]
        done = subprocess.run(command, capture_output=True, check=False, env=_environment())
        return done.returncode == 0

    # -- one sandbox ----------------------------------------------------------------------

    def connect(self, key: str) -> Link:
        """Make the network of one sandbox.

        The address begins at the account's number; where it is taken (two portals on one
        host, or more accounts than addresses) the next free one is used.

        Raises
        ------
        NetworkError
            No address is free, or the kernel refused.
        """
        self.disconnect(key)
        usable = self.subnet.num_addresses - 3  # network, gateway, broadcast
        uid, _, name = key.partition("-")
        first = int(uid) + (zlib.crc32(name.encode()) if name else 0)
        error = "the subnet is too small"
        for attempt in range(min(_TRIES, max(0, usable))):
            slot = (first + attempt) % usable
            try:
                return self._connect(key, slot)
            except NetworkError as problem:
                error = str(problem)
                _run(["ip", "netns", "del", self.namespace(key).name], check=False)
                if "exists" not in error:
                    break
        raise NetworkError(f"no network for a user server in {self.subnet}: {error}")

    def _connect(self, key: str, slot: int) -> Link:
        namespace = self.namespace(key)
        address, interface = str(self.subnet[slot + 2]), f"{self.instance.interfaces}{slot:x}"
        outside = (
            f"netns add {namespace.name}",
            f"link add {interface} type veth peer name eth0 netns {namespace.name}",
            f"link set {interface} addrgenmode none",  # no IPv6 address
            f"addr add {self.gateway}/32 dev {interface}",
            f"link set {interface} up",
            f"route add {address}/32 dev {interface} src {self.gateway}",
        )
        inside = (
            "link set lo up",
            "link set eth0 addrgenmode none",
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {self.gateway} dev eth0 scope link",
            f"route add default via {self.gateway} dev eth0",
        )
        _run(["ip", "-batch", "-"], "\n".join(outside) + "\n")
        settings = _SYSCTL / "conf" / interface
        (settings / "route_localnet").write_text("1")  # the hub is at 127.0.0.1
        (settings / "rp_filter").write_text("1")  # no borrowed address
        _run(["ip", "-n", namespace.name, "-batch", "-"], "\n".join(inside) + "\n")
        return Link(namespace=namespace, interface=interface, address=address)

    def disconnect(self, key: str) -> None:
        """Remove the network of one sandbox, where there is one."""
        namespace = self.namespace(key)
        if namespace.exists():
            # The link goes now; the namespace itself goes with its last process.
            _run(["ip", "-n", namespace.name, "link", "del", "eth0"], check=False)
            _run(["ip", "netns", "del", namespace.name], check=False)

    def namespace(self, key: str) -> Path:
        """Return where the network namespace of a sandbox is found."""
        return _NAMESPACES / f"{self.instance.namespaces}{key}"

    def keys(self) -> set[str]:
        """Return the sandboxes that have a network."""
        prefix = self.instance.namespaces
        found = _NAMESPACES.glob(f"{prefix}*") if _NAMESPACES.is_dir() else ()
        return {entry.name.removeprefix(prefix) for entry in found}

    def resolv_conf(self) -> str:
        """Return /etc/resolv.conf as a sandbox needs it."""
        resolvers, loopback = resolvers_of_host()
        lines = [f"nameserver {address}" for address in resolvers]
        if loopback:
            lines.insert(0, f"nameserver {self.gateway}")
        source = _resolver_file()
        kept = re.findall(r"(?m)^(?:search|options)\s.*$", source)
        return "\n".join([*lines, *kept]) + "\n"

    def remove(self) -> None:
        """Take the rules away."""
        _run(["nft", "delete", "table", "inet", self.instance.table], check=False)


def resolvers_of_host() -> tuple[list[str], str | None]:
    """Return the host's name servers: those that a sandbox can reach, and one on loopback.

    systemd-resolved answers on 127.0.0.53 to its own host alone, so the servers behind it are
    used, as containers do.
    """
    found = re.findall(r"(?m)^nameserver\s+([0-9.]+)\s*$", _resolver_file())
    addresses = [str(ipaddress.IPv4Address(text)) for text in found]
    outside = [a for a in addresses if not ipaddress.IPv4Address(a).is_loopback]
    loopback = [a for a in addresses if ipaddress.IPv4Address(a).is_loopback]
    return outside, loopback[0] if loopback and not outside else None


def attached_networks() -> list[IPv4Network]:
    """Return the networks that this host is plugged into: its LAN, whatever its addresses."""
    done = subprocess.run(
        ["ip", "-j", "-4", "route", "show", "scope", "link"],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    routes = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    return [
        IPv4Network(route["dst"], strict=False)
        for route in routes
        if route["dst"] != "default" and not route.get("dev", "").startswith("lh")
    ]


def _resolver_file() -> str:
    behind, own = Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")
    text = own.read_text() if own.exists() else ""
    if "127.0.0.53" in text and behind.exists():
        return behind.read_text()
    return text


def _rule(match: str, values: Iterable[object], verdict: str) -> str:
    """Write a rule on a set of values; for an empty set there is no rule."""
    elements = ", ".join(str(value) for value in values)
    return f"{match} {{ {elements} }} {verdict}" if elements else ""


def _run(command: list[str], text: str | None = None, *, check: bool = True) -> None:
    try:
        done = subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            text=True,
            capture_output=True,
            check=False,
            timeout=30,
            env={
                "PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}",
                "LC_ALL": "C",
            },
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{command[0]}: {error}") from error
    if check and done.returncode:
        raise NetworkError(f"{command[0]}: {done.stderr.strip()}")


def _environment() -> dict[str, str]:
    """Return what ip and nft need: their folder, and messages that can be read."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {"PATH": f"/usr/sbin:/sbin:{path}", "LC_ALL": "C"}
