"""Tell the hub where a user server listens, with the server's certificate where there is one.

Part of the job script, as `hub.slurm.job.node`.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from hub.slurm.job.node import LaunchError, say

HUB_TIMEOUT = 300.0  # seconds that the hub may be away while the server starts
CONNECT_TIMEOUT = 5.0
#: By these words the hub knows the line in the job's log.
UNREACHED = "this node does not reach the hub"


def announce(
    port: int,
    api: str,
    token: str,
    tls: ssl.SSLContext | None = None,
    patience: float = HUB_TIMEOUT,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Tell the hub the port; waits for a hub that is just being restarted, as long as `alive`.

    The log says at once, and again and again, that the hub is not reached: the hub reads it
    there (`hub.slurm.unreached`), and knows whether it was being restarted.
    """
    request = urllib.request.Request(  # noqa: S310 - the hub's own address
        api.rstrip("/") + "/batchspawner",
        data=json.dumps({"port": port}).encode(),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        method="POST",
    )
    # The hub is asked directly, whatever web proxy the environment names.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
    )
    began = time.monotonic()
    pause = 0.2
    while True:
        try:
            connect(api)
            with opener.open(request, timeout=20):
                return
        except urllib.error.HTTPError as error:
            reason = f"the hub refused the server's port: {error.code} {error.reason}"
            if error.code < 500:
                raise LaunchError(reason) from None
        except OSError as error:
            lasted = round(time.monotonic() - began)
            why = getattr(error, "reason", None) or error.strerror or error
            reason = f"{UNREACHED} at {api} for {lasted} s: {why}"
            say(reason)
        if time.monotonic() > began + patience:
            raise LaunchError(reason)
        if not alive():
            return
        time.sleep(pause)
        pause = min(5.0, pause * 2)


def connect(url: str, timeout: float = CONNECT_TIMEOUT) -> None:
    """Connect to where an address leads and hang up; raises OSError where that fails.

    A resolver that keeps silent would hold this process up for most of a minute: it is
    asked in a thread.
    """
    place = urlsplit(url)
    port = place.port or {"https": 443}.get(place.scheme, 80)
    outcome: list[OSError | None] = []

    def try_it() -> None:
        try:
            with socket.create_connection((place.hostname or "", port), timeout):
                outcome.append(None)
        except OSError as error:
            outcome.append(error)

    attempt = threading.Thread(target=try_it, daemon=True)
    attempt.start()
    attempt.join(timeout + 1)
    error = outcome[0] if outcome else OSError(110, f"nobody says where {place.hostname} is")
    if error is not None:
        raise error


def unpack(env: dict[str, str]) -> str:
    """Make files of the server's certificate, for its owner alone, and name them in `env`.

    Returns the folder; empty where the portal uses no internal SSL.
    """
    text = env.pop("LABHUB_TLS", "")
    if not text:
        return ""
    # In memory where there is such a folder: a key should not lie on a disk.
    memory = "/dev/shm"  # noqa: S108 - the folder in it is made by mkdtemp
    folder = tempfile.mkdtemp(prefix="labhub-", dir=memory if os.path.isdir(memory) else None)  # noqa: PTH112
    parts = json.loads(text)
    for name, variable in (
        ("key", "JUPYTERHUB_SSL_KEYFILE"),
        ("certificate", "JUPYTERHUB_SSL_CERTFILE"),
        ("authorities", "JUPYTERHUB_SSL_CLIENT_CA"),
    ):
        path = f"{folder}/{name}.pem"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(parts[name])
        env[variable] = path
    return folder


def context(folder: str) -> ssl.SSLContext | None:
    """Return how the hub is asked with the server's certificate."""
    if not folder:
        return None
    tls = ssl.create_default_context(cafile=f"{folder}/authorities.pem")
    tls.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
    return tls
