"""Where the portal's programs listen, and what others are told of it.

A target may say otherwise (`hub.targets`): on one machine all of them are on 127.0.0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.labfile.schema import Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Outside:
    """A second address of the gate's, for user servers on other hosts.

    Attributes
    ----------
    host : str
        An address of this host.
    key, certificate, clients : str
        PEM files: the gate's own, and the authority of those who may connect; empty: plain HTTP.
    """

    host: str
    key: str = ""
    certificate: str = ""
    clients: str = ""


@dataclass(frozen=True)
class PortalAddresses:
    """The addresses of hub, proxy's API and gate.

    Attributes
    ----------
    hub_bind : str
        URL at which the hub listens for the user servers.
    hub_connect : str
        URL that user servers are told; empty: the same.
    hub_for_portal : (str, int)
        Host and port at which the portal's own programs reach the hub, by plain HTTP.
    proxy_api : (str, int)
        Host and port of the proxy's API.
    gate : (str, int)
        Host and port at which the gate listens for the proxy.
    gate_for_servers : str
        Host and port under which user servers reach the gate.
    gate_outside : Outside or None
        Where it listens for user servers on other hosts.
    """

    hub_bind: str
    hub_for_portal: tuple[str, int]
    proxy_api: tuple[str, int]
    gate: tuple[str, int]
    gate_for_servers: str
    hub_connect: str = ""
    gate_outside: Outside | None = None

    @classmethod
    def of_one_host(cls, settings: Settings) -> PortalAddresses:
        """Return the addresses where hub, proxy, gate and user servers are on one host."""
        ports = settings.local
        return cls(
            hub_bind=f"http://{LOOPBACK}:{ports.hub_port}",
            hub_for_portal=(LOOPBACK, ports.hub_port),
            proxy_api=(LOOPBACK, ports.proxy_api_port),
            gate=(LOOPBACK, ports.gate_port),
            gate_for_servers=f"{LOOPBACK}:{ports.gate_port}",
        )

    @property
    def hub(self) -> str:
        """Where the portal's own programs ask the hub."""
        return "http://{}:{}/hub".format(*self.hub_for_portal)

    @property
    def proxy_api_url(self) -> str:
        """Where the proxy's API is asked."""
        return "http://{}:{}".format(*self.proxy_api)

    @property
    def gate_url(self) -> str:
        """Where the proxy sends the requests for apps."""
        return "http://{}:{}".format(*self.gate)
