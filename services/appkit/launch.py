"""What the portal tells an app that it starts, and the start of an aiohttp app."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiohttp import web

from labkit.base.log_limit import LogLimit
from labkit.base.problems import LabkitError
from labkit.viewers.paths import EnvironmentMissingError
from services.appkit import secrets


@dataclass(frozen=True)
class Portal:
    """What an app knows of the portal around it.

    Attributes
    ----------
    prefix : str
        Path below which the app answers, with slashes at both ends.
    secret : str
        By which it knows the gate.
    data : Path
        Its folder for what stays.
    socket : str
        The Unix socket that it listens on.
    lab, home : str
        The lab's name, and the address of the portal's home page.

    Raises
    ------
    ValueError
        There is no secret: anybody could say who they are.
    """

    prefix: str
    secret: str = field(repr=False)
    data: Path = Path()
    socket: str = ""
    lab: str = ""
    home: str = ""

    def __post_init__(self) -> None:
        secrets.checked(self.secret)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Self:
        """Return what stands in the variables; the secret is taken out of them.

        Raises
        ------
        KeyError
            One is not set.
        """
        return cls(
            prefix=environ["LABHUB_APP_PREFIX"],
            secret=environ.pop(secrets.VARIABLE),  # no program that the app starts inherits it
            data=Path(environ["LABHUB_APP_DATA"]),
            socket=environ["LABHUB_APP_SOCKET"],
            lab=environ.get("LABHUB_LAB_NAME", ""),
            home=environ.get("LABHUB_HOME_URL", ""),
        )


def not_started(error: KeyError) -> str:
    """Return what is said where one of the portal's variables is missing."""
    return f"{error.args[0]} is not set: the portal starts this app (labhub app status)."


def run(make: Callable[[Portal], web.Application]) -> None:
    """Serve an aiohttp app until told to stop; what is wrong ends the process with its cause.

    Parameters
    ----------
    make : callable
        Returns the app: see `services.appkit.app.create`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(LogLimit())
    try:
        portal = Portal.from_environment(os.environ)
    except KeyError as error:
        sys.exit(not_started(error))
    except ValueError as error:
        sys.exit(str(error))
    try:
        app = make(portal)
    except (LabkitError, EnvironmentMissingError, ValueError) as error:
        sys.exit(str(error))
    web.run_app(app, path=portal.socket, print=None, access_log=None)
