"""What this host lacks for user servers of several people, each with a hint."""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from hub.labfile.schema import Settings
from hub.sandbox import cgroups, seccomp
from hub.sandbox.instance import Instance
from hub.sandbox.network import IPv4Network, Network, NetworkError, attached_networks
from hub.state.paths import Paths
from labkit.base.problems import Problem

_PACKAGES = {
    "bwrap": "bubblewrap",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "useradd": "passwd",
    "chpasswd": "passwd",
}
_BWRAP = (0, 8)  # the first with --size for a tmpfs
_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_NET_ADMIN": 12,
    "CAP_SETUID": 7,
    "CAP_CHOWN": 0,
}
_PLACE = "isolation"
_SECCOMP = Path("/proc/sys/kernel/seccomp/actions_avail")


def problems(settings: Settings, paths: Paths) -> list[Problem]:
    """Return what stands in the way of the local target's user servers; nothing is changed."""
    if os.geteuid() != 0:
        return [_owner_alone()]
    missing = _tools() + _rights()
    if missing:  # nothing else can be asked without them
        return missing
    return [
        *_system_calls(),
        *_limits(Instance.of(paths)),
        *_rules(Instance.of(paths), settings),
        *_addresses(settings),
        *_firewalls(Instance.of(paths)),
        *_folders(settings),
    ]


def _owner_alone() -> Problem:
    name = pwd.getpwuid(os.geteuid()).pw_name
    return Problem(
        _PLACE,
        f"the portal does not run as root, so it serves {name} alone",
        "for several people start it as root: sudo ./labhub up",
        warning=True,
    )


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _tools() -> list[Problem]:
    missing = [tool for tool in _PACKAGES if not _which(tool)]
    found = []
    if missing:
        packages = " ".join(sorted({_PACKAGES[tool] for tool in missing}))
        found.append(
            Problem(
                _PLACE,
                f"missing on this machine: {', '.join(missing)}",
                f"apt-get install --yes {packages}",
            )
        )
    if "bwrap" not in missing:
        text = _output(["bwrap", "--version"])
        version = re.search(r"(\d+)\.(\d+)", text)
        if version and (int(version[1]), int(version[2])) < _BWRAP:
            found.append(
                Problem(
                    _PLACE,
                    f"{text.strip()} is too old: 0.8 is needed (Debian 12, Ubuntu 24.04)",
                    "upgrade the machine, or install a newer bubblewrap",
                )
            )
    return found


def _rights() -> list[Problem]:
    with open("/proc/self/status") as stream:  # noqa: PTH123
        effective = next(int(line.split()[1], 16) for line in stream if line.startswith("CapEff"))
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if not missing:
        return []
    return [
        Problem(
            _PLACE,
            f"root lacks {', '.join(missing)} here, as in a container without privileges",
            "start the portal on the machine itself, or in a privileged container",
        )
    ]


def _system_calls() -> list[Problem]:
    machine = platform.machine()
    if not seccomp.known(machine):
        text = f"there is no system call filter for this processor ({machine})"
        return [Problem(_PLACE, text, f"use a machine with: {', '.join(seccomp.CALLS)}")]
    if not _SECCOMP.exists():
        text = "this kernel cannot filter system calls (seccomp)"
        return [Problem(_PLACE, text, "start a kernel with CONFIG_SECCOMP_FILTER")]
    return []


def _limits(instance: Instance) -> list[Problem]:
    try:
        groups = cgroups.detect(instance.cgroup)
    except OSError as error:
        return [
            Problem(
                _PLACE,
                f"user servers cannot be limited: {error}",
                "start Linux with cgroups for cpu, memory and pids (on Debian: remove"
                " cgroup_disable=memory from the kernel's command line)",
            )
        ]
    closed = {
        parent.parent
        for parent in groups.parents.values()
        if not os.access(parent.parent, os.W_OK) or os.statvfs(parent.parent).f_flag & os.ST_RDONLY
    }
    return [
        Problem(
            _PLACE,
            f"{folder} cannot be written",
            "mount the cgroups writable, or start the portal by systemd with Delegate=yes",
        )
        for folder in sorted(closed)
    ]


def _rules(instance: Instance, settings: Settings) -> list[Problem]:
    try:
        Network(instance, settings.local.subnet, settings.local.hub_port).check()
    except NetworkError as error:
        return [
            Problem(
                _PLACE,
                f"the kernel refuses the firewall's rules: {error}",
                "start a kernel with nftables (nat, masquerade, reject, connlimit)",
            )
        ]
    return []


def _addresses(settings: Settings) -> list[Problem]:
    found = []
    subnet = IPv4Network(settings.local.subnet)
    if subnet.num_addresses - 3 < settings.local.max_servers:
        found.append(
            Problem(
                "local.subnet",
                f"{subnet} is too small for {settings.local.max_servers} servers",
                "use a larger one, such as 10.98.0.0/16",
            )
        )
    clash = [net for net in attached_networks() if net.overlaps(subnet)]
    if clash:
        found.append(
            Problem(
                "local.subnet",
                f"{subnet} is in use on this machine: {', '.join(map(str, clash))}",
                "choose a private network that the lab does not use, such as 10.99.0.0/16",
            )
        )
    unused = [n for n in settings.local.allow_networks if isinstance(n, ipaddress.IPv6Network)]
    if unused:
        found.append(
            Problem(
                "local.allow_networks",
                f"{', '.join(map(str, unused))}: user servers have no IPv6, this opens nothing",
                "name the IPv4 networks",
                warning=True,
            )
        )
    return found


def _firewalls(instance: Instance) -> list[Problem]:
    """Find other tables that drop by default: an 'accept' of ours does not overrule them."""
    try:
        listed = json.loads(_output(["nft", "-j", "list", "chains"]) or "{}")
    except ValueError:
        return []
    found = []
    for entry in listed.get("nftables", []):
        chain = entry.get("chain", {})
        if chain.get("policy") == "drop" and chain.get("hook") in ("input", "forward"):
            name = f"{chain['family']} {chain['table']} {chain['name']}"
            ways = ("iifname",) if chain["hook"] == "input" else ("iifname", "oifname")
            rules = (f'insert rule {name} {way} "{instance.interfaces}*" accept' for way in ways)
            hint = "; ".join(f"nft '{rule}'" for rule in rules)
            found.append(
                Problem(
                    _PLACE,
                    f"another firewall ({name}) drops by default, user servers' packets too",
                    f"let it leave them to the portal's own rules: {hint}",
                    warning=True,
                )
            )
    return found


def _folders(settings: Settings) -> list[Problem]:
    found = []
    if not settings.storage.homes.is_dir():
        found.append(
            Problem(
                "storage.homes",
                f"{settings.storage.homes} is not there",
                f"mkdir --mode=755 {settings.storage.homes}",
            )
        )
    return found


def _output(command: list[str]) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env={"PATH": path, "LC_ALL": "C"},
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
