"""Start Label Studio: ``python -m services.label_studio``, as the portal does."""

from __future__ import annotations

import os
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
    "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the box's own
    "umask": 7,
    "control_socket_disable": True,
    "loglevel": "warning",
}


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn in this process, with Label Studio."""

    def load_config(self) -> None:
        """Take the settings from here alone: no file and no command line."""
        for name, value in SETTINGS.items():
            self.cfg.set(name, value)
        self.cfg.set("bind", f"unix:{os.environ['LABHUB_APP_SOCKET']}")

    def load(self) -> Any:
        """Return Label Studio for WSGI."""
        from django.core.wsgi import get_wsgi_application
        from django.urls import get_resolver

        application = get_wsgi_application()
        _ = get_resolver().url_patterns  # before the first request has to wait for it
        return application


def main() -> None:
    """Bring the database up to date, then be the server."""
    os.umask(0o077)
    try:
        os.environ.update(configuration.variables(os.environ))
    except (KeyError, configuration.SettingsError) as error:
        sys.exit(f"labhub: Label Studio cannot start: {error}")
    database.prepare(Path(os.environ["LABHUB_APP_DATA"]), Path(sys.prefix))
    Server().run()


if __name__ == "__main__":
    main()
