"""A person's own packages in their server: the layer is made, offered, shown and taken away."""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar

from jupyter_server.auth.decorator import authorized
from tornado import web

from labkit.base import activity
from labkit.base.interpreter import LAB
from labkit.environments import shell
from labkit.environments.personal import EnvironmentChangeError, Personal
from labkit.server.kernels import LabKernels
from labkit.server.pages import Api


def offer(server: Any, settings: dict[str, Any]) -> None:
    """Make the personal environment and let kernels and terminals run in it.

    Parameters
    ----------
    server : ServerApp
        The server; one whose home cannot be written starts all the same.
    settings : dict
        The web application's settings.
    """
    personal = Personal()
    try:
        renewed = personal.ensure()
    except OSError as error:
        server.log.warning("Your own packages cannot be used: %s", error)
        renewed = False
    kernels = server.kernel_spec_manager
    if isinstance(kernels, LabKernels):
        kernels.personal, kernels.renewed = personal, renewed
    # For what people start: this process has its own Python already.
    os.environ["PATH"] = f"{personal.path}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ[LAB] = str(personal.lab)
    terminals = settings.get("terminal_manager")
    if terminals is not None:
        try:
            terminals.shell_command = shell.command(personal.path, activity.folder())
        except OSError as error:
            server.log.warning("Terminals do not find the environment's programs: %s", error)


class OwnPackages(Api):
    """What a person has installed, and taking it away."""

    auth_resource: ClassVar[str] = "server"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the packages of the personal environment, and which hide the lab's."""
        personal = Personal()
        own = await asyncio.to_thread(personal.freeze)
        shadows = await asyncio.to_thread(personal.shadows)
        self.finish({"packages": own, "hides": [str(shadow) for shadow in shadows]})

    @web.authenticated
    @authorized
    async def delete(self) -> None:
        """Take all packages out of the personal environment; answer with what it held."""
        try:
            held = await asyncio.to_thread(Personal().reset)
        except (EnvironmentChangeError, OSError) as error:
            raise web.HTTPError(500, str(error), reason="Not removed") from error
        self.finish({"removed": held})


def rules() -> list[tuple[str, Any]]:
    """Return the addresses."""
    return [(r"/labkit/api/packages", OwnPackages)]
