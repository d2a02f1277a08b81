"""Serve a member's Dash app: ``python run_dash.py SOCKET FOLDER``, in the environment `dash`.

It runs in the app's sandbox and knows no secret; `front` stands before it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import dash
from gunicorn.app.base import BaseApplication

SETTINGS = {
    "workers": 1,
    "threads": 8,
    "worker_class": "gthread",
    # The member's code is loaded here, before the worker: an error in it ends the app at once,
    # with its traceback as the last thing in the log.
    "preload_app": True,
    "timeout": 600,
    "graceful_timeout": 8,
    "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the sandbox's own
    "control_socket_disable": True,
    "loglevel": "warning",
    "umask": 0o077,
}


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn in this process.

    Parameters
    ----------
    place : str
        The Unix socket.
    folder : Path
        The app's.
    """

    def __init__(self, place: str, folder: Path) -> None:
        self._place = place
        self._folder = folder
        super().__init__()

    def load_config(self) -> None:
        """Take the settings from here alone: no file and no command line."""
        for name, value in SETTINGS.items():
            self.cfg.set(name, value)
        self.cfg.set("bind", f"unix:{self._place}")

    def load(self) -> Any:
        """Return the member's app for WSGI."""
        return load(self._folder).server


def load(folder: Path) -> dash.Dash:
    """Run ``app.py`` and return the app that it makes."""
    # `app.run()` at the end of a script would serve a second time, elsewhere.
    dash.Dash.run = lambda *_, **__: None
    spec = importlib.util.spec_from_file_location("app", folder / "app.py")
    if spec is None or spec.loader is None:
        sys.exit("app.py cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["app"] = module
    spec.loader.exec_module(module)
    found = {id(one): one for one in vars(module).values() if isinstance(one, dash.Dash)}
    app = getattr(module, "app", None)
    if isinstance(app, dash.Dash):
        return app
    if len(found) != 1:
        sys.exit(f"app.py makes {len(found)} Dash apps: one is needed, e.g. app = Dash(__name__)")
    return found.popitem()[1]


if __name__ == "__main__":
    here = Path(sys.argv[2])
    os.chdir(here)
    sys.path.insert(0, str(here))
    Server(sys.argv[1], here).run()
