"""Start Label Studio: ``python -m services.label_studio``, as the portal does."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from services.label_studio import configuration, database


def listen(path: str) -> int:
    """Return an open socket; gunicorn's own would not belong to the folder's group, the gate's."""
    door = socket.socket(socket.AF_UNIX)
    old = os.umask(0o007)
    door.bind(path)
    os.umask(old)
    door.listen(128)
    door.set_inheritable(True)
    return door.detach()


def main() -> None:
    """Bring the database up to date, then become the server."""
    os.umask(0o077)
    try:
        os.environ.update(configuration.variables(os.environ))
    except (KeyError, configuration.SettingsError) as error:
        sys.exit(f"labhub: Label Studio cannot start: {error}")
    data = Path(os.environ["LABHUB_APP_DATA"])
    database.prepare(data, Path(sys.prefix))
    words = [
        *("gunicorn", "--bind", f"fd://{listen(os.environ['LABHUB_APP_SOCKET'])}"),
        # One process: SQLite has one writer, and threads wait for each other politely.
        *("--workers", "1", "--threads", "8", "--worker-class", "gthread"),
        *("--timeout", "600", "--graceful-timeout", "8", "--worker-tmp-dir", "/dev/shm"),  # noqa: S108
        *("--no-control-socket", "--log-level", "warning"),
        "services.label_studio.wsgi:application",
    ]
    os.execv(Path(sys.prefix) / "bin" / "gunicorn", words)  # noqa: S606 - an argument list


if __name__ == "__main__":
    main()
