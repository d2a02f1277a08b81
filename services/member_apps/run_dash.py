"""Serve a member's Dash app: ``python run_dash.py SOCKET FOLDER``, in the environment `dash`.

It runs in the app's sandbox and knows no secret; `front` stands before it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dash

if TYPE_CHECKING:
    from services.appkit.wsgi import Server


def module(name: str, file: Path) -> Any:
    """Run a file as a module and return it.

    The portal's packages are not on the path here: their names are the member's to use.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        sys.exit(f"{file.name} cannot be loaded.")
    script = importlib.util.module_from_spec(spec)
    sys.modules[name] = script
    spec.loader.exec_module(script)
    return script


def server(place: str, folder: Path) -> Server:
    """Return Gunicorn for the app of a folder, on a Unix socket."""
    wsgi = module("labhub_wsgi", Path(__file__).resolve().parents[1] / "appkit" / "wsgi.py")
    made: Server = wsgi.Server(f"unix:{place}", lambda: load(folder).server, umask=0o077)
    return made


def load(folder: Path) -> dash.Dash:
    """Run ``app.py`` and return the app that it makes."""
    # `app.run()` at the end of a script would serve a second time, elsewhere.
    dash.Dash.run = lambda *_, **__: None
    script = module("app", folder / "app.py")
    apps = {id(one): one for one in vars(script).values() if isinstance(one, dash.Dash)}
    app = getattr(script, "app", None)
    if isinstance(app, dash.Dash):
        return app
    if len(apps) != 1:
        sys.exit(f"app.py makes {len(apps)} Dash apps: one is needed, e.g. app = Dash(__name__)")
    return apps.popitem()[1]


if __name__ == "__main__":
    here = Path(sys.argv[2])
    os.chdir(here)
    sys.path.insert(0, str(here))
    server(sys.argv[1], here).run()
