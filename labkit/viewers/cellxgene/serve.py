"""Run CellxGene as a process of its own: executed by the Python of CellxGene's environment.

``python -I serve.py CONFIG LOG`` prints the process id of the server and returns at once. The
server is nobody's child, so it outlives the kernel that asked for it. ``python -I serve.py CONFIG``
stays in the foreground and ends with its parent: for a service that keeps its viewers itself.
The host ``unix:///path`` is a Unix socket. Standard library and CellxGene (package ``server``)
only.

What CellxGene 1.3.0 has no option for is set here:

- answers under 500 bytes, or to clients without gzip, came out empty: it hands ``bytearray`` to a
  WSGI server that takes ``bytes``;
- its cookie is named by the port and bound to the viewer's own path;
- a port that was just released can be used again;
- its logo is looked for beside the viewer's folder, not in it: below a prefix it was missing;
- when memory runs out the kernel of the operating system ends the viewer, not the notebook.
"""

import contextlib
import ctypes
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Application = Callable[[Any, Any], Any]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def detach(log: str) -> None:
    """Fork; the parent prints the child's process id and ends."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        print(child, flush=True)
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    for handle, number in ((null, 0), (out, 1), (out, 2)):
        os.dup2(handle, number)


def attach() -> None:
    """Ask the operating system to end this process when its parent ends (Linux)."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it was asked
        sys.exit(0)


def be_ended_first() -> None:
    """Let the kernel of the operating system choose this process when memory runs out."""
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as file:
        file.write("800")


def bytes_only(application: Application) -> Application:
    """Wrap a WSGI application: every piece of its answers is ``bytes``."""

    def wrapped(environ: Any, start_response: Any) -> Iterator[bytes]:
        answer = application(environ, start_response)
        try:
            for piece in answer:
                yield bytes(piece)
        finally:
            if hasattr(answer, "close"):
                answer.close()

    return wrapped


def find_logo(response: Any) -> Any:
    """Make the script's address of the logo relative to the page."""
    if response.status_code == 200 and "javascript" in response.content_type:
        response.direct_passthrough = False
        response.set_data(response.get_data().replace(b'"../static/', b'"static/'))
    return response


def is_port_available(host: str, port: int) -> bool:
    """Return whether the port can be bound, also right after another server left it."""
    if host.startswith("unix://"):
        return True  # the path of a socket; its folder is the caller's own
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def main(config: str, log: str = "") -> None:
    """Detach where there is a log to write to, then serve as the configuration file says."""
    if log:
        detach(log)
    else:
        attach()
    be_ended_first()
    port = json.loads(Path(config).read_text(encoding="utf-8"))["server"]["app"]["port"]

    launch = importlib.import_module("server.cli.launch")
    checks: Any = importlib.import_module("server.common.config.server_config")
    checks.is_port_available = is_port_available
    before = launch.CliLaunchServer._before_adding_routes

    def before_adding_routes(app: Any, app_config: Any) -> None:
        before(app, app_config)
        app.config.update(
            SESSION_COOKIE_NAME=f"cellxgene-{port}",
            SESSION_COOKIE_PATH=os.environ.get("LABKIT_COOKIE_PATH", "/"),
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Lax",
        )
        app.wsgi_app = bytes_only(app.wsgi_app)
        app.after_request(find_logo)  # registered after the compression, so it runs before it

    launch.CliLaunchServer._before_adding_routes = staticmethod(before_adding_routes)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    launch.launch.main(args=["--config-file", config], prog_name="cellxgene")


if __name__ == "__main__":
    main(*sys.argv[1:])
