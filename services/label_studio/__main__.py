"""Start Label Studio: ``python -m services.label_studio``, as the portal does."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from services.label_studio import configuration, database

SETTINGS = {
    # One process: SQLite has one writer, and threads wait for each other politely.
    "workers": 1,
    "threads": 8,
    "worker_class": "gthread",
    # Loaded once, before the worker: the database's preparation has loaded most of it already.
    "preload_app": True,
    "timeout": 600,
    "graceful_timeout": 8,
    "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the sandbox's own
    "control_socket_disable": True,
    "loglevel": "warning",
}


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn in this process, with Label Studio.

    Parameters
    ----------
    end : socket
        Listens already.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        super().__init__()

    def load_config(self) -> None:
        """Take the settings from here alone: no file and no command line."""
        for name, value in SETTINGS.items():
            self.cfg.set(name, value)
        self.cfg.set("bind", f"fd://{self._end.fileno()}")

    def load(self) -> Any:
        """Return Label Studio for WSGI."""
        from django.core.wsgi import get_wsgi_application
        from django.urls import get_resolver

        application = get_wsgi_application()
        _ = get_resolver().url_patterns  # before the first request has to wait for it
        return application


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


def main() -> None:
    """Bring the database up to date, then be the server."""
    os.umask(0o077)
    try:
        os.environ.update(configuration.variables(os.environ))
    except (KeyError, configuration.SettingsError) as error:
        sys.exit(f"labhub: Label Studio cannot start: {error}")
    database.prepare(Path(os.environ["LABHUB_APP_DATA"]), Path(sys.prefix))
    Server(listen(os.environ["LABHUB_APP_SOCKET"])).run()


if __name__ == "__main__":
    main()
