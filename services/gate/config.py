"""What the gate is told: the portal's addresses and its apps, a file that the portal writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class App:
    """One app behind the gate.

    Attributes
    ----------
    name, title : str
        Which one, for the hub and for people.
    prefix : str
        ``/services/<name>/``.
    origin : str
        Its public origin, without a slash at the end.
    socket : str
        Its Unix socket; empty where it listens on a port.
    address_file : str
        Says ``{"host": ..., "port": ...}`` once it was started; empty where it has a socket.
    uid : int or None
        The account that must be at the other end of the socket; None: not checked.
    strip_prefix : bool
        The app sees paths without the prefix.
    health : str
        Path that answers when it is ready, as a browser would ask for it.
    start_timeout : float
        Seconds.
    idle : float or None
        Seconds without use after which it is stopped.
    headers : tuple of str
        Request headers, in small letters, that pass to it beside the common ones.
    """

    name: str
    title: str
    prefix: str
    origin: str
    socket: str = ""
    address_file: str = ""
    uid: int | None = None
    strip_prefix: bool = False
    health: str = ""
    start_timeout: float = 60
    idle: float | None = None
    headers: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """Host and port of its origin."""
        return urlsplit(self.origin).netloc

    @property
    def scheme(self) -> str:
        """``http`` or ``https``, as browsers see it."""
        return urlsplit(self.origin).scheme


@dataclass(frozen=True)
class Portal:
    """What all apps share.

    Attributes
    ----------
    lab : str
        The lab's name, for the pages.
    contact : str
        Whom to ask; may be empty.
    url : str
        The portal's public address.
    hub_url : str
        Where the gate asks the hub, ending in ``/hub``.
    own_origins : bool
        Each app has an origin of its own.
    port : int
        Where the gate listens, on 127.0.0.1.
    internal_host : str
        Host and port under which the people's servers reach the gate.
    account : str
        Unix account that the gate becomes; empty: it stays what it is.
    outside : str
        Another address of this host on which it listens, for people's servers elsewhere.
    key, certificate, clients : str
        PEM files for that address: the gate's own, and the authority of those who may connect
        there; empty: plain HTTP.
    """

    lab: str
    contact: str
    url: str
    hub_url: str
    own_origins: bool
    port: int
    internal_host: str
    account: str
    outside: str = ""
    key: str = ""
    certificate: str = ""
    clients: str = ""


@dataclass(frozen=True)
class Config:
    """The file's content."""

    portal: Portal
    apps: dict[str, App] = field(default_factory=dict)


def dump(config: Config) -> str:
    """Return the text of the file; no secret is in it."""
    content = {
        "portal": vars(config.portal),
        "apps": [vars(app) for app in config.apps.values()],
    }
    return json.dumps(content, indent=2) + "\n"


def load(path: Path) -> Config:
    """Read the file.

    Raises
    ------
    OSError, ValueError
        It is not there, or not what `dump` wrote.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        apps = [App(**{**app, "headers": tuple(app["headers"])}) for app in content["apps"]]
        return Config(Portal(**content["portal"]), {app.name: app for app in apps})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the gate's: {error}") from None
