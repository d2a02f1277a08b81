"""Start Label Studio: ``python -m services.label_studio``, as the portal does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from services.appkit.wsgi import Server, listen
from services.label_studio import configuration, database


def load() -> Any:
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
    end = listen(os.environ["LABHUB_APP_SOCKET"])
    Server(f"fd://{end.fileno()}", load).run()


if __name__ == "__main__":
    main()
