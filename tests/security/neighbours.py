"""What the attacks of one user on another have in common."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hub.labfile.read import read
from hub.sandbox.configure import sandboxes_of
from hub.sandbox.sandboxes import Sandboxes
from hub.state.paths import Paths
from tests.support.portal import Portal

# Run in a sandbox: what a connection meets. A refusal by the firewall is "no route", by an empty
# port "refused"; both differ from an open door.
REACH = """
import errno, socket
try:
    with socket.create_connection(({host!r}, {port}), timeout=3) as connection:
        print("open")
except OSError as error:
    print("timeout" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, error))
"""
SERVE = """
import http.server as h
h.ThreadingHTTPServer(({host!r}, {port}), h.BaseHTTPRequestHandler).serve_forever()
"""


def reach(portal: Portal, who: str, host: str, port: int) -> str:
    """Return what a user's server meets at an address."""
    return portal.run(who, REACH.format(host=host, port=port)).strip()


def listen(portal: Portal, who: str, host: str, port: int) -> None:
    """Let a user's server listen."""
    portal.run(
        who,
        "import http.server as h, threading\n"
        f"s = h.ThreadingHTTPServer(({host!r}, {port}), h.BaseHTTPRequestHandler)\n"
        "threading.Thread(target=s.serve_forever, daemon=True).start()",
    )


@contextmanager
def served(host: str, port: int, *, namespace: str = "") -> Iterator[None]:
    """Listen on the host, or in a network namespace of it."""
    inside = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    program = SERVE.format(host=host, port=port)
    process = subprocess.Popen([*inside, sys.executable, "-I", "-S", "-c", program])
    try:
        probe = REACH.format(host=host, port=port)
        wait_for(
            lambda: (
                "open"
                in subprocess.run(
                    [*inside, sys.executable, "-I", "-S", "-c", probe],
                    capture_output=True,
                    text=True,
                ).stdout
            )
        )
        yield
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], timeout: float = 120, pause: float = 0.05) -> None:
    """Wait until something is true.

    Raises
    ------
    TimeoutError
        It did not become true.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        time.sleep(pause)


def sandboxes_behind(portal: Portal) -> Sandboxes:
    """Return the portal's sandboxes, as another process of the administrator's sees them."""
    return sandboxes_of(read(portal.state / "lab.yaml"), Paths(portal.state, portal.envs))


def traces(sandboxes: Sandboxes, key: str) -> list[str]:
    """Return everything that is left of a sandbox on the host."""
    left = [str(folder) for folder in sandboxes.groups.folders(key) if folder.exists()]
    left += [
        str(path)
        for path in (sandboxes.network.namespace(key), sandboxes.folder(key))
        if path.exists()
    ]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    namespace = sandboxes.network.namespace(key).name
    left += [
        line for line in links.splitlines() if line.endswith(namespace) or f"{namespace} " in line
    ]
    return left
