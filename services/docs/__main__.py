"""Start the app: ``python -m services.docs``, with what the portal says in variables."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path

from aiohttp import web

from labkit.base.problems import LabkitError
from services.docs import settings
from services.docs.app import make_app
from services.docs.library import Library


def main() -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        library = Library(partial(settings.shown, Path(os.environ["LABHUB_APP_DATA"])))
        app = make_app(library, os.environ["LABHUB_APP_PREFIX"], os.environ["LABHUB_APP_SECRET"])
        place = os.environ["LABHUB_APP_SOCKET"]
    except KeyError as error:
        sys.exit(f"{error.args[0]} is not set: the portal starts this app (labhub app status).")
    except (LabkitError, ValueError) as error:
        sys.exit(str(error))
    library.shelves()  # before the first reader has to wait for it
    web.run_app(app, path=place, print=None, access_log=None)


if __name__ == "__main__":
    main()
