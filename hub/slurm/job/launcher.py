"""Start a user server inside its job: its port, its network, the hub's connections to it.

This text is part of the job script (`hub.slurm.script`), with the modules that it imports, and
runs on a compute node as the server's owner: standard library only, Python 3.9 or newer.
Its arguments are settings as JSON, which hold no secret, and the server's command.

The server listens on 127.0.0.1, in a network namespace of its own where the node allows one.
This process listens on the node's own port, hands on what comes from the hub's host, and
closes everything else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from hub.slurm.job.announce import announce, context, unpack
from hub.slurm.job.connections import Guard, relay, take
from hub.slurm.job.network import separate
from hub.slurm.job.node import LaunchError, die_with_parent, leave_node, say, without_slurm


def launch(settings: dict[str, Any], command: list[str]) -> int:
    """Start the server and return its exit status when it ends."""
    leave_node()
    first, last = settings["ports"]
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    guard = Guard(settings["addresses"], settings["accounts"])
    listener = take(first, last, job)
    listener.listen(256)
    port = listener.getsockname()[1]
    alone = separate(settings["network"], os.environ["JUPYTERHUB_API_URL"], settings["shim"])
    if alone:
        inside = port
    else:
        # Kept for the server, which may come beside it: nobody listens there yet.
        kept = take(first, last, job + (last - first) // 2, "127.0.0.1")
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        inside = kept.getsockname()[1]
    env = without_slurm(os.environ)
    secret = unpack(env)
    place = urlsplit(env["JUPYTERHUB_SERVICE_URL"])
    env["JUPYTERHUB_SERVICE_URL"] = urlunsplit(place._replace(netloc=f"127.0.0.1:{inside}"))
    env["LABHUB_ENDS_AT"] = str(int(time.time()) + settings["seconds"])
    env["LABHUB_NETWORK"] = "own" if alone else "shared"
    try:
        server = subprocess.Popen(command, env=env, preexec_fn=die_with_parent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: server.send_signal(number))
        threading.Thread(target=relay, args=(listener, inside, guard, alone), daemon=True).start()
        try:
            hub, token = env["JUPYTERHUB_API_URL"], env["JUPYTERHUB_API_TOKEN"]
            announce(port, hub, token, context(secret), alive=lambda: server.poll() is None)
        except LaunchError:
            server.terminate()
            server.wait()
            raise
        status = server.wait()
    finally:
        if secret:
            shutil.rmtree(secret, ignore_errors=True)
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    try:
        code = launch(json.loads(sys.argv[1]), sys.argv[2:])
    except (LaunchError, OSError) as error:
        say(f"the server could not be started: {error}")
        code = 78
    os._exit(code)
