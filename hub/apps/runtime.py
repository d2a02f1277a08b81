"""Where the apps behind the login run: one protocol, whatever runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from hub.apps.catalogue import App
from labkit.base.problems import LabkitError

State = Literal["starting", "running", "stopped", "failed"]
LOG_BYTES = 256 << 10


class AppRuntimeError(LabkitError):
    """An app cannot be started, stopped or asked for: what runs the apps refused or is down."""


@dataclass(frozen=True)
class AppStatus:
    """How an app is.

    Attributes
    ----------
    state : str
        ``failed`` where it ended by itself with an error, ``stopped`` where it does not run.
    pid : int or None
        Its process on this machine, where it has one.
    since : float or None
        Its start, in seconds since 1970, where it runs.
    """

    state: State = "stopped"
    pid: int | None = None
    since: float | None = None


@dataclass(frozen=True)
class AppAddress:
    """Where the gate reaches an app.

    Attributes
    ----------
    socket : str
        Its Unix socket; empty where it listens on a port.
    address_file : str
        Says ``{"host": ..., "port": ...}`` once it was started; empty where it has a socket.
    uid : int or None
        The account that must be at the other end of the socket; None: not checked.
    """

    socket: str = ""
    address_file: str = ""
    uid: int | None = None


class AppRuntime(Protocol):
    """What runs the apps that are declared.

    An app is given its name's state also where it was never started, and one that ended is started
    again by who opens it: `start` is called by the gate, by way of the hub.
    """

    def prepare(self) -> None:
        """Make what the declared apps need, and tell the gate of them; starts none.

        Call it before the gate or an app is started. What is there already stays.
        """

    def follow(self) -> bool:
        """Make apps and gate follow what is declared now; the hub is not told.

        Returns
        -------
        bool
            False where the portal does not run: its next start does it.
        """

    def supervised(self) -> Mapping[str, Mapping[str, str]]:
        """Return the programs that the portal's supervisor runs for the apps.

        Returns
        -------
        mapping of str to mapping of str to str
            Name -> its section of the configuration; empty where something else runs the apps.
        """

    def start(self, name: str) -> None:
        """Start an app, and do not wait until it answers; one that runs is left alone.

        Raises
        ------
        AppRuntimeError
            There is no such app, or nobody to start it.
        """

    def stop(self, name: str) -> None:
        """Stop an app and wait for its end; one that does not run is left alone.

        Raises
        ------
        AppRuntimeError
            There is no such app, or nobody to stop it.
        """

    def statuses(self) -> dict[str, AppStatus]:
        """Return how the apps are, by name; none where the portal is down."""

    def address(self, app: App) -> AppAddress:
        """Return where the gate reaches an app, started or not."""

    def log(self, name: str, lines: int, most: int = LOG_BYTES) -> str:
        """Return the end of what an app has printed, its last runs included.

        Parameters
        ----------
        name : str
            The app.
        lines : int
            At most so many.
        most : int
            Bytes that are read.
        """

    def delete_log(self, name: str) -> None:
        """Delete what a withdrawn app has printed: its name may be somebody else's tomorrow."""

    def status(self, name: str) -> AppStatus:
        """Return how an app is; one that is not known is stopped."""
        return self.statuses().get(name, AppStatus())
