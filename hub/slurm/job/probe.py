"""Try on a compute node what a user server would need there, for ``labhub doctor --node``.

Part of a job script, as `hub.slurm.job.node`. Prints one JSON object for each thing that was
tried: ``job``, ``topic``, ``ok``, ``text``, and ``port`` where the hub's host is to connect.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from hub.slurm.job.announce import connect
from hub.slurm.job.connections import take
from hub.slurm.job.network import try_network
from hub.slurm.job.node import LaunchError

CALL_TIMEOUT = 60.0  # seconds in which the hub's host must connect


def report(topic: str, ok: bool, text: str, port: int | None = None) -> None:
    """Print a result, where the hub's host can read it now."""
    job = os.environ.get("SLURM_JOB_ID", "")
    result = {"job": job, "topic": topic, "ok": ok, "text": text, "port": port}
    print(json.dumps(result), flush=True)
    try:
        os.fsync(sys.stdout.fileno())
    except OSError:
        return  # a pipe


def attempt(topic: str, url: str) -> None:
    """Try whether an address answers; the hub's own also by HTTP."""
    try:
        connect(url)
        if topic == "hub" and url.startswith("http:"):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=20):
                pass
    except urllib.error.HTTPError as error:
        report(topic, False, f"{url} answers {error.code} {error.reason}")
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or error
        report(topic, False, f"{url} is not reached: {why}")
    else:
        report(topic, True, f"{url} answers")


def main(settings: dict[str, Any]) -> None:
    """Try everything; what fails does not keep the rest from being tried."""
    host = urlsplit(settings["hub"]).hostname or ""
    try:
        address = socket.gethostbyname(host)
        report("name", True, f"{host} is {address}")
    except OSError as error:
        report("name", False, f"{host} has no address: {error.strerror or error}")
    attempt("hub", settings["hub"])
    attempt("gate", settings["gate"])
    for program in settings["programs"]:
        there = os.access(program, os.X_OK)
        report("environments", there, f"{program} {'can' if there else 'cannot'} be run")
    if settings["network"] != "shared":
        why = try_network(settings["hub"])
        words = why or "each server has a network of its own"
        report("network", not why or settings["network"] == "auto", words)
    first, last = settings["ports"]
    try:
        listener = take(first, last, os.getpid())
    except LaunchError as error:
        report("ports", False, str(error))
        return
    listener.listen(1)
    listener.settimeout(CALL_TIMEOUT)
    port = listener.getsockname()[1]
    report("port", True, f"listens on {port}", port=port)
    try:
        with listener.accept()[0] as connection:
            connection.sendall(b"labhub")
    except OSError:
        return  # the hub's host says itself that it could not connect


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
