"""Unix sockets in place of ports, where other people share this machine's 127.0.0.1.

On a cluster's node without a network of one's own (``LABHUB_NETWORK=shared``) whoever has a job
there can connect to a port. labkit's own viewers then listen on a socket in a folder that only
its owner can enter; the address in the browser, ``proxy/5005/``, stays the same.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from labkit.base import scratch

_SECONDS = 2.0


def folder() -> Path | None:
    """Return where this person's viewers listen; None: on ports, which are this person's alone.

    Raises
    ------
    RuntimeError
        Somebody else has made the folder.
    """
    if os.environ.get("LABHUB_NETWORK") != "shared":
        return None
    # On the node: a home may lie on a network's storage, which knows no sockets.
    try:
        return scratch.folder()
    except PermissionError as error:
        raise RuntimeError(
            f"The folder {error.filename} was made by somebody else, or others may enter it, so no"
            " viewer is started there.\nNext step: tell an administrator, who can remove it."
        ) from None


def of_port(port: int) -> Path | None:
    """Return the socket that stands for a port; None: the port itself is used."""
    place = folder()
    return None if place is None else place / f"{port}.sock"


def listening(port: int) -> Path | None:
    """Return the socket that stands for a port, where there is one."""
    try:
        path = of_port(port)
        return path if path is not None and stat.S_ISSOCK(path.lstat().st_mode) else None
    except (OSError, RuntimeError):
        return None


def answers(path: Path) -> bool:
    """Return whether somebody listens on a socket; one that was left over is removed."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return False
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return False
        except OSError:
            return True  # it is there, but busy
    return True
