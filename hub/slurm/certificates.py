"""JupyterHub's internal SSL: who has which certificate, and how a job gets its own.

JupyterHub makes one authority for each kind of part: hub, proxy, servers. A server believes the
hub's and the proxy's alone, so that no other person's server can speak to it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from traitlets.config import Config

from hub.labfile.schema import Settings
from hub.labfile.slurm import Slurm
from hub.state.paths import Paths
from labkit.base import files

_LOCK_TIMEOUT = 300.0  # seconds: a hub makes all of them meanwhile

VARIABLE = "LABHUB_TLS"  # of a job: its launcher makes files of it
GATE = "gate"
_INTERNAL = "hub-internal"  # so JupyterHub names the hub's own
_HUB, _PROXY, _SERVERS = "hub-ca", "proxy-client", "notebooks-ca"  # as JupyterHub names them


@dataclass(frozen=True)
class Files:
    """A certificate, its key, and whom its owner believes.

    Attributes
    ----------
    key, certificate, authorities : Path
        PEM files; the key is the portal's alone.
    """

    key: Path
    certificate: Path
    authorities: Path


def folder(paths: Paths) -> Path:
    """Return where JupyterHub keeps them."""
    return paths.state / "ssl" / "certificates"


def of_gate(paths: Paths) -> Files:
    """Return the gate's: servers know it as a part of the hub, and it believes servers alone."""
    place = folder(paths)
    own = place / GATE
    return Files(own / f"{GATE}.key", own / f"{GATE}.crt", place / _SERVERS / f"{_SERVERS}.crt")


def alternative(name: str) -> str:
    """Return a host as certificates name it: ``IP:192.0.2.1`` or ``DNS:head``."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def configure(c: Config, settings: Settings, slurm: Slurm, paths: Paths) -> None:
    """Let JupyterHub use it."""
    c.JupyterHub.internal_ssl = True
    c.JupyterHub.internal_certs_location = str(folder(paths))
    c.JupyterHub.trusted_alt_names = _names(settings, slurm)


def _names(settings: Settings, slurm: Slurm) -> list[str]:
    # The proxy hands on the browser's Host header, and checks a certificate by that name.
    hosts = [slurm.hub_host, slurm.bind_address, settings.parts.hostname or ""]
    return list(dict.fromkeys(alternative(host) for host in hosts if host))


def _own_names(settings: Settings, slurm: Slurm) -> list[str]:
    return list(dict.fromkeys(["IP:127.0.0.1", "DNS:localhost", *_names(settings, slurm)]))


def make(settings: Settings, slurm: Slurm, paths: Paths) -> None:
    """Make what is not there yet; the proxy reads its own before there is a hub.

    Call it before proxy, gate or hub start, from as many processes as there are.

    Parameters
    ----------
    settings : Settings
        The lab file.
    slurm : Slurm
        Its section; without ``internal_ssl`` nothing is made.
    paths : Paths
        Where the portal keeps its state.
    """
    if not slurm.internal_ssl:
        return
    outer = paths.state / "ssl"
    outer.mkdir(mode=0o700, exist_ok=True)
    outer.chmod(0o700)  # certipy opens the folders below it
    names = _own_names(settings, slurm)
    told = outer / "names"
    with files.locked(outer / "lock", _LOCK_TIMEOUT, "the portal's certificates"):
        if not told.is_file() or json.loads(told.read_text()) != names:
            asyncio.run(_make(settings, slurm, paths, names))
            files.write_atomic(told, json.dumps(names), mode=0o600, sync=True)


async def _make(settings: Settings, slurm: Slurm, paths: Paths, names: list[str]) -> None:
    from certipy import Certipy
    from jupyterhub.app import JupyterHub

    c = Config()
    configure(c, settings, slurm, paths)
    JupyterHub(config=c).init_internal_ssl()  # the same that the hub does, or finds done
    certipy = Certipy(store_dir=str(folder(paths)))
    # Where a name has changed, the authorities stay, and so running servers go on.
    for name in (_INTERNAL, GATE):
        certipy.create_signed_pair(name, _HUB, alt_names=names, overwrite=True)


def proxy_words(slurm: Slurm, paths: Paths) -> list[str]:
    """Return configurable-http-proxy's arguments, which name files and hold no secret."""
    if not slurm.internal_ssl:
        return []
    place = folder(paths)
    return [
        f"--client-ssl-key={place / _PROXY / _PROXY}.key",
        f"--client-ssl-cert={place / _PROXY / _PROXY}.crt",
        f"--client-ssl-ca={place / _PROXY}-ca_trust.crt",
        "--client-ssl-request-cert",
        "--client-ssl-reject-unauthorized",
    ]


def for_job(files: Mapping[str, str]) -> str:
    """Return a server's certificate and key as one variable of its job.

    It travels as the server's token does: in sbatch's environment, which SLURM shows to nobody.

    Parameters
    ----------
    files : mapping of str to str
        As ``Spawner.create_certs`` returns them.
    """
    names = {"key": "keyfile", "certificate": "certfile", "authorities": "cafile"}
    return json.dumps({name: Path(files[key]).read_text() for name, key in names.items()})


def of_nodes(nodes: Collection[tuple[str, str]]) -> list[str]:
    """Return the nodes' names and addresses as certificates have them.

    Parameters
    ----------
    nodes : collection of (str, str)
        Name and address of each node on which the server may run.
    """
    return list(dict.fromkeys(alternative(word) for node in nodes for word in node))
