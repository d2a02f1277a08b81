"""Gunicorn in this process, for the WSGI app of a sandbox.

Imports Gunicorn and the standard library alone: the environment of an app may have no `labkit`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from gunicorn.app.base import BaseApplication

SETTINGS = {
    # One process: threads share its memory, and what is kept in it.
    "workers": 1,
    "threads": 8,
    "worker_class": "gthread",
    # Loaded before the worker: an error ends the app at once, as the last thing in its log.
    "preload_app": True,
    "timeout": 600,
    "graceful_timeout": 8,
    "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the sandbox's own
    "control_socket_disable": True,
    "loglevel": "warning",
}


class Server(BaseApplication):  # type: ignore[misc]
    """Serves until told to stop: ``Server(...).run()``.

    Parameters
    ----------
    bind : str
        ``unix:/path``, or ``fd://number`` of a socket that listens already.
    load : callable
        Returns the app.
    **settings
        Gunicorn's, in place of the portal's.
    """

    def __init__(self, bind: str, load: Callable[[], Any], **settings: Any) -> None:
        self._settings: Mapping[str, Any] = {**SETTINGS, **settings, "bind": bind}
        self._load = load
        super().__init__()

    def load_config(self) -> None:
        """Take the settings from here alone: no file and no command line."""
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the app."""
        return self._load()


def listen(place: str) -> socket.socket:
    """Return a socket for the gate.

    Its folder gives it the gate's group. Gunicorn's own sockets it does not: they are given to
    the group of the process, and the gate could not connect.
    """
    end = socket.socket(socket.AF_UNIX)
    before = os.umask(0o007)
    try:
        end.bind(place)
    finally:
        os.umask(before)
    end.listen(128)
    return end
